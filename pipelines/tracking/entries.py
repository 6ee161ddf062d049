"""Writes metrics, pictures and texts into an MLflow run, from any process.

When the server fails, the entry is lost with a warning, and the stage goes on.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import mlflow
from mlflow.entities import Metric

from dhpf.drawing import Picture, save_picture
from dhpf.pipelines.tracking.tracker import UNREACHED, short_text

_log = logging.getLogger(__name__)


def log_to_run(uri: str, run_id: str, metrics: Mapping[str, float], step: int) -> None:
    """Writes numbers into a run; characters that MLflow does not allow in names are replaced."""
    now = int(time.time() * 1000)
    batch = [Metric(clean_name(name), float(value), now, step) for name, value in metrics.items()]
    with tolerant("metrics"):
        mlflow.MlflowClient(uri).log_batch(run_id, metrics=batch)


def log_picture_to_run(uri: str, run_id: str, picture: Picture, artifact: str) -> None:
    """Writes a picture into a run as the PNG artifact FOLDER/NAME.png."""
    with tempfile.TemporaryDirectory() as folder, tolerant(artifact):
        path = Path(folder) / Path(artifact).name
        save_picture(picture, path)
        mlflow.MlflowClient(uri).log_artifact(run_id, str(path), str(Path(artifact).parent))


def log_text_to_run(uri: str, run_id: str, text: str, artifact: str) -> None:
    """Writes a text into a run as the artifact FOLDER/NAME."""
    with tolerant(artifact):
        mlflow.MlflowClient(uri).log_text(run_id, text, artifact)


@contextlib.contextmanager
def tolerant(what: str) -> Iterator[None]:
    """Turns a failure of MLflow within the block into a warning that names what was lost."""
    try:
        yield
    except UNREACHED as error:
        _log.warning("MLflow did not take %s: %s", what, short_text(error))


def clean_name(name: str) -> str:
    """A name in which each character that MLflow does not allow is replaced by an underscore."""
    return "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in name)
