"""Registers trained models: one version per checkpoint, with its model card and tags by which it can be searched."""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from pathlib import Path

import mlflow
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array

from dhpf.pipelines.outputs.code_version import code_version
from dhpf.pipelines.tracking.model_card import ModelCard
from dhpf.pipelines.tracking.runs import StageRun, clean_name
from dhpf.pipelines.tracking.tracker import CODE_TAG, Tracker

TRAINED_ALIAS = "latest-trained"
CHECKPOINT_TAG = "dhpf.checkpoint_sha256"
METRIC_TAGS, DATASET_TAGS = "dhpf.metric.", "dhpf.dataset "
CHECKPOINT_ARTIFACT, CARD_ARTIFACT = "checkpoint", "model_card"
MAX_DESCRIPTION = 5000
"""Characters that MLflow's database takes as a version's description; a longer card is whole among the artifacts."""

_POINTS = Array(Array(DataType.double))
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.binary, "source"), ColSpec(DataType.binary, "target"), ColSpec(_POINTS, "points")]),
    outputs=Schema(
        [
            ColSpec(_POINTS, "points"),
            ColSpec(Array(DataType.boolean), "valid"),
            ColSpec(Array(DataType.double), "confidence"),
            ColSpec(DataType.string, "reason"),
        ]
    ),
)
"""Encoded images and source points in pixels -> target points, valid, confidence; or the reason why there are none."""


def register_model(tracker: Tracker, run: StageRun, name: str, checkpoint: Path, card: ModelCard) -> str:
    """Registers a trained model with its card, once per checkpoint; the alias latest-trained then means it.

    Returns:
        the version.

    Raises:
        InputError: MLflow cannot be reached.
    """
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    with tracker.reaching():
        return _registered(tracker, name, digest) or _new_version(tracker, run, name, checkpoint, digest, card)


def _registered(tracker: Tracker, name: str, digest: str) -> str | None:
    return next((str(v.version) for v in tracker.versions(name) if v.tags.get(CHECKPOINT_TAG) == digest), None)


def _new_version(tracker: Tracker, run: StageRun, name: str, checkpoint: Path, digest: str, card: ModelCard) -> str:
    version = _logged(tracker, run, name, checkpoint, card)
    client = tracker.client
    client.update_model_version(name, version, card.text()[:MAX_DESCRIPTION])
    for key, value in _card_tags(card).items():
        client.set_model_version_tag(name, version, key, value)
    client.set_registered_model_alias(name, TRAINED_ALIAS, version)
    # Last, since this tag says that nothing is left to do.
    client.set_model_version_tag(name, version, CHECKPOINT_TAG, digest)
    return version


def _logged(tracker: Tracker, run: StageRun, name: str, checkpoint: Path, card: ModelCard) -> str:
    """The model with its files, logged by the run; gives the new version."""
    # MLflow asks for an input example, which would put an image into every model; the signature is given instead.
    warnings.filterwarnings("ignore", message=".*input example.*", category=UserWarning)
    with tracker.as_default(), mlflow.start_run(run_id=run.run_id), tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "checkpoint.safetensors"
        weights.write_bytes(checkpoint.read_bytes())
        written = Path(folder) / "MODEL_CARD.md"
        written.write_text(card.text(), encoding="utf-8")
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("registered_model.py")),
            artifacts={CHECKPOINT_ARTIFACT: str(weights), CARD_ARTIFACT: str(written)},
            signature=SIGNATURE,
            pip_requirements=[f"dhpf=={code_version().partition('+')[0]}"],
            registered_model_name=name,
            metadata={"metrics": {k: float(v) for k, v in card.metrics.items()}},
        )
    # MLflow ended the run; the stage is still going on.
    tracker.client.update_run(run.run_id, status="RUNNING")
    return str(info.registered_model_version)


def _card_tags(card: ModelCard) -> dict[str, str]:
    """The facts of a card that become tags, by which versions are searched and listed."""
    metrics = {clean_name(METRIC_TAGS + name): f"{value:.6g}" for name, value in card.metrics.items()}
    return metrics | {clean_name(DATASET_TAGS + d.name): d.digest for d in card.data} | {CODE_TAG: code_version()}
