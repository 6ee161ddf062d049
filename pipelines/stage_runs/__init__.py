"""How a workflow runs each of its stages: inputs opened, results tracked, pictured and reported."""
