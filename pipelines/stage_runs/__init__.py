"""How a workflow runs each stage: opens its inputs, tracks its results in MLflow, draws pictures, and reports."""
