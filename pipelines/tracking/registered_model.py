"""The model that MLflow serves; MLflow stores this file beside the checkpoint and runs it to load the model."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from dhpf.errors import InputError
from dhpf.images import decode_image
from dhpf.matcher import Matcher


class TransferModel(PythonModel):
    """Transfers source points to target images, for pairs of encoded images."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the checkpoint that is stored beside this file."""
        self._matcher = Matcher.load(context.artifacts["checkpoint"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row per pair; see SIGNATURE in registering.py. A pair that cannot be used is a row with a reason."""
        return pd.DataFrame([self._transferred(row) for row in model_input.to_dict("records")])

    def _transferred(self, row: Mapping[Hashable, Any]) -> dict[str, Any]:
        try:
            source, target = (decode_image(bytes(row[name]), name) for name in ("source", "target"))
            points, valid, confidence = self._matcher.transfer(source, target, [list(p) for p in row["points"]])
        except InputError as error:
            return {"points": [], "valid": [], "confidence": [], "reason": str(error)}
        return {"points": points.tolist(), "valid": valid.tolist(), "confidence": confidence.tolist(), "reason": ""}


mlflow.models.set_model(TransferModel())
