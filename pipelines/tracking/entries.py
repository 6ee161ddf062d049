"""Files that are added to a run in MLflow at once, by those who need MLflow anyway."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mlflow

from dhpf.drawing import Picture, save_picture
from dhpf.errors import shown
from dhpf.pipelines.tracking.tracker import UNREACHED, short_text

_log = logging.getLogger(__name__)


def log_picture_to_run(uri: str, run_id: str, picture: Picture, artifact: str) -> None:
    """Writes a picture into a run as the PNG artifact FOLDER/NAME.png; a warning where MLflow does not take it."""
    with tempfile.TemporaryDirectory() as folder, _tolerant(artifact):
        path = Path(folder) / Path(artifact).name
        save_picture(picture, path)
        mlflow.MlflowClient(uri).log_artifact(run_id, str(path), str(Path(artifact).parent))


def log_text_to_run(uri: str, run_id: str, text: str, artifact: str) -> None:
    """Writes a text into a run as the artifact FOLDER/NAME; a warning where MLflow does not take it."""
    with _tolerant(artifact):
        mlflow.MlflowClient(uri).log_text(run_id, shown(text), artifact)


@contextlib.contextmanager
def _tolerant(what: str) -> Iterator[None]:
    """Turns a failure of MLflow within the block into a warning that names what was lost."""
    try:
        yield
    except UNREACHED as error:
        _log.warning("MLflow did not take %s: %s", what, short_text(error))
