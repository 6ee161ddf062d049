"""The model as MLflow serves it: this file is stored with the checkpoint and run when the model is loaded."""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from dhpf.images import decode_image
from dhpf.matcher import Matcher


class TransferModel(PythonModel):  # type: ignore[misc]
    """Encoded image pairs and source points -> target points."""

    def load_context(self, context: PythonModelContext) -> None:
        self._matcher = Matcher.load(context.artifacts["checkpoint"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row per pair; see SIGNATURE in tracking.py."""
        rows = []
        for row in model_input.itertuples():
            source, target = (
                decode_image(bytes(data), name) for data, name in ((row.source, "source"), (row.target, "target"))
            )
            points, valid, confidence = self._matcher.transfer(source, target, [list(p) for p in row.points])
            rows.append({"points": points.tolist(), "valid": valid.tolist(), "confidence": confidence.tolist()})
        return pd.DataFrame(rows)


mlflow.models.set_model(TransferModel())
