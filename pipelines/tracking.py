"""Runs, pictures and models in MLflow; with registered_model.py the only code that knows MLflow.

One run per workflow folder with one child run per stage, found again when the workflow goes on, so that a resumed
workflow stays one run. By default everything lies in the work folder: mlflow.db and mlartifacts.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A dead server must not hold a stage for minutes; MLflow reads these when it is imported.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow  # noqa: E402
from mlflow.entities import Metric, Run, ViewType  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.models import ModelSignature  # noqa: E402
from mlflow.types import ColSpec, DataType, Schema  # noqa: E402
from mlflow.types.schema import Array  # noqa: E402

from dhpf.drawing import Picture, save_picture  # noqa: E402
from dhpf.errors import InputError  # noqa: E402
from pipelines.code_version import code_version  # noqa: E402

FOLDER_TAG, STAGE_TAG = "dhpf.folder", "dhpf.stage"
CHECKPOINT_ARTIFACT = "checkpoint"
TRAINED_ALIAS = "latest-trained"

_POINTS = Array(Array(DataType.double))
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.binary, "source"), ColSpec(DataType.binary, "target"), ColSpec(_POINTS, "points")]),
    outputs=Schema(
        [
            ColSpec(_POINTS, "points"),
            ColSpec(Array(DataType.boolean), "valid"),
            ColSpec(Array(DataType.double), "confidence"),
        ]
    ),
)
"""Encoded images and source points in pixels -> target points, valid, confidence."""


@dataclass(frozen=True)
class RegisteredVersion:
    """A model version of the registry, with its checkpoint on this machine.

    Attributes:
        name, version: such as "dhpf" and "3".
        checkpoint: path of the safetensors file.
    """

    name: str
    version: str
    checkpoint: Path


class StageRun:
    """A child run: what one stage logs."""

    def __init__(self, tracker: Tracker, run_id: str) -> None:
        self._client = tracker.client
        self.tracking_uri = tracker.uri
        self.run_id = run_id

    def log_config(self, config: Mapping[str, Any]) -> None:
        """The configuration, whole as JSON and flat as parameters; parameters that are there stay."""
        self._client.log_dict(self.run_id, dict(config), "config.json")
        known = self._client.get_run(self.run_id).data.params
        for name, value in _flatten(config).items():
            if name not in known:
                self._client.log_param(self.run_id, name, value)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Numbers, under names cleaned of what MLflow does not take."""
        log_to_run(self.tracking_uri, self.run_id, metrics, step)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Facts such as the dataset's fingerprint."""
        for name, value in tags.items():
            self._client.set_tag(self.run_id, name, str(value))

    def log_file(self, path: Path, folder: str) -> None:
        """A file as an artifact."""
        self._client.log_artifact(self.run_id, str(path), folder)

    def log_picture(self, picture: Picture, artifact: str) -> None:
        """A picture as the PNG artifact FOLDER/NAME.png."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(artifact).name
            save_picture(picture, path)
            self.log_file(path, str(Path(artifact).parent))


class Tracker:
    """MLflow for one work folder.

    Args:
        work: folder that holds the default store.
        uri: of the tracking server; None: MLFLOW_TRACKING_URI, or SQLite in `work`.
    """

    def __init__(self, work: Path, uri: str | None = None) -> None:
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self._work = work.resolve()
        self._work.mkdir(parents=True, exist_ok=True)
        default = f"sqlite:///{self._work / 'mlflow.db'}"
        self.uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or default
        self._is_default = self.uri == default
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        self.client = mlflow.MlflowClient(self.uri, self.uri)

    @contextlib.contextmanager
    def workflow_run(self, workflow: str, folder: Path) -> Iterator[str]:
        """The run of a workflow folder; FINISHED or FAILED when the block ends."""
        experiment = self._experiment(workflow)
        tags = {FOLDER_TAG: str(folder.resolve()), "dhpf.code_version": code_version()}
        run_id = self._found(experiment, {FOLDER_TAG: tags[FOLDER_TAG], STAGE_TAG: "workflow"})
        if run_id is None:
            tags |= {STAGE_TAG: "workflow"}
            run_id = self.client.create_run(experiment, tags=tags, run_name=workflow).info.run_id
        with self._status(run_id):
            yield run_id

    @contextlib.contextmanager
    def stage_run(self, workflow: str, parent: str, stage: str) -> Iterator[StageRun]:
        """A stage's child run of a workflow run; FINISHED or FAILED when the block ends."""
        experiment = self._experiment(workflow)
        own = {"mlflow.parentRunId": parent, STAGE_TAG: stage}
        run_id = self._found(experiment, own)
        if run_id is None:
            tags = own | {"dhpf.code_version": code_version()}
            run_id = self.client.create_run(experiment, tags=tags, run_name=f"{workflow}/{stage}").info.run_id
        with self._status(run_id):
            yield StageRun(self, run_id)

    def register(self, run: StageRun, name: str, checkpoint: Path, metrics: Mapping[str, float]) -> str:
        """Logs a trained model and registers it, once per checkpoint; the alias latest-trained then means it.

        Returns:
            the version.
        """
        known = self.client.get_run(run.run_id).data.tags.get("dhpf.registered_version")
        if known is not None:
            return known
        # The signature is given; an example would put an image into every model.
        warnings.filterwarnings("ignore", message=".*input example.*", category=UserWarning)
        with mlflow.start_run(run_id=run.run_id), tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "checkpoint.safetensors"
            weights.write_bytes(checkpoint.read_bytes())
            info = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(Path(__file__).with_name("registered_model.py")),
                artifacts={CHECKPOINT_ARTIFACT: str(weights)},
                signature=SIGNATURE,
                pip_requirements=[f"dhpf=={code_version().partition('+')[0]}"],
                registered_model_name=name,
                metadata={"metrics": {k: float(v) for k, v in metrics.items()}},
            )
        version = str(info.registered_model_version)
        self.client.set_registered_model_alias(name, TRAINED_ALIAS, version)
        self.client.set_tag(run.run_id, "dhpf.registered_version", version)
        # MLflow ended the run; the stage is still going on.
        self.client.update_run(run.run_id, status="RUNNING")
        return version

    def fetch(self, uri: str, folder: Path) -> RegisteredVersion:
        """The version that models:/NAME@ALIAS or models:/NAME/VERSION means now, its checkpoint copied to `folder`.

        Raises:
            InputError: there is no such model, alias or version.
        """
        name, version = self._resolve(uri)
        try:
            path = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=str(folder)))
        except (MlflowException, OSError) as error:
            raise InputError(f"model {uri}: version {version} has no readable artifacts ({error})") from error
        found = sorted(path.rglob("*.safetensors"))
        if not found:
            raise InputError(f"model {uri}: version {version} holds no checkpoint of this project")
        return RegisteredVersion(name, version, found[0])

    def _resolve(self, uri: str) -> tuple[str, str]:
        reference = uri.removeprefix("models:/")
        try:
            if "@" in reference:
                name, alias = reference.rsplit("@", 1)
                return name, str(self.client.get_model_version_by_alias(name, alias).version)
            name, _, version = reference.rpartition("/")
            if not name:
                raise InputError(f"model {uri!r}: write models:/NAME@ALIAS or models:/NAME/VERSION")
            return name, str(self.client.get_model_version(name, version).version)
        except MlflowException as error:
            names = ", ".join(m.name for m in self.client.search_registered_models()) or "none"
            raise InputError(f"model {uri}: not in the registry {self.uri} ({error}); models there: {names}") from error

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        location = (self._work / "mlartifacts").as_uri() if self._is_default else None
        return str(self.client.create_experiment(name, artifact_location=location))

    def _found(self, experiment: str, tags: Mapping[str, str]) -> str | None:
        query = " and ".join(f"tags.`{name}` = '{value.replace(chr(39), '')}'" for name, value in tags.items())
        runs: list[Run] = self.client.search_runs([experiment], query, ViewType.ACTIVE_ONLY, max_results=1)
        return str(runs[0].info.run_id) if runs else None

    @contextlib.contextmanager
    def _status(self, run_id: str) -> Iterator[None]:
        self.client.update_run(run_id, status="RUNNING")
        try:
            yield
        except BaseException:
            self.client.set_terminated(run_id, "FAILED")
            raise
        self.client.set_terminated(run_id, "FINISHED")


def log_to_run(uri: str, run_id: str, metrics: Mapping[str, float], step: int) -> None:
    """Numbers into a run from any process, under names cleaned of what MLflow does not take."""
    now = int(time.time() * 1000)
    batch = [Metric(_clean(name), float(value), now, step) for name, value in metrics.items()]
    mlflow.MlflowClient(uri).log_batch(run_id, metrics=batch)


def _clean(name: str) -> str:
    return "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in name)


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[_clean(f"{prefix}{key}")] = value if isinstance(value, str) else json.dumps(value)
    return flat
