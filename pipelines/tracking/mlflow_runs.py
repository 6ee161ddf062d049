"""Runs, pictures and models in MLflow; with registered_model.py the only code that knows MLflow.

One run per workflow folder with one child run per stage and configuration, found again when the workflow goes on, so
that a resumed workflow stays one run. By default everything lies in the work folder: mlflow.db and mlartifacts.

A server that cannot be reached when a run is opened or a model is registered is an error; the same command goes on from
there. A server that fails in between costs the entries that it missed, with a warning, and never the stage.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

# A dead server must not hold a stage for minutes; MLflow reads these when it is imported.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow  # noqa: E402
from mlflow.entities import Metric, ViewType  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.models import ModelSignature  # noqa: E402
from mlflow.types import ColSpec, DataType, Schema  # noqa: E402
from mlflow.types.schema import Array  # noqa: E402
from requests import RequestException  # noqa: E402

from dhpf.drawing import Picture, save_picture  # noqa: E402
from dhpf.errors import InputError  # noqa: E402
from dhpf.pipelines.outputs.code_version import code_version  # noqa: E402
from dhpf.pipelines.outputs.store import canonical_json  # noqa: E402
from dhpf.pipelines.tracking.model_card import ModelCard  # noqa: E402

FOLDER_TAG, STAGE_TAG, CONFIG_TAG, PARENT_TAG = "dhpf.folder", "dhpf.stage", "dhpf.config", "mlflow.parentRunId"
CHECKPOINT_TAG, CODE_TAG = "dhpf.checkpoint_sha256", "dhpf.code_version"
METRIC_TAGS, DATASET_TAGS = "dhpf.metric.", "dhpf.dataset "
CHANGEABLE = (
    *("resources", "num_actors", "min_actors", "max_failures", "feature_memory_mb"),
    *("num_workers", "min_workers", "checkpoint_steps", "kept_maps_mb"),
)
"""Settings of a stage that may differ when it goes on: they do not decide what it gives."""

TRACKING_VARIABLE, REGISTRY_VARIABLE = "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"
CHECKPOINT_ARTIFACT, CARD_ARTIFACT = "checkpoint", "model_card"
MAX_DESCRIPTION = 5000
"""Characters that MLflow's database takes as a version's description; a longer card is whole among the artifacts."""

TRAINED_ALIAS = "latest-trained"

UNREACHED = (MlflowException, RequestException)
"""What MLflow raises when its server or store does not do what it should."""

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

_log = logging.getLogger(__name__)


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

    @property
    def uri(self) -> str:
        """What names exactly this version, now and later."""
        return f"models:/{self.name}/{self.version}"


class StageRun:
    """A child run: what one stage logs. `log_config` comes first, for it decides which run this is."""

    def __init__(self, tracker: Tracker, workflow: str, parent: str, stage: str) -> None:
        self._tracker, self._client = tracker, tracker.client
        self.workflow, self._tags = workflow, {PARENT_TAG: parent, STAGE_TAG: stage}
        self._run_id: str | None = None
        self.tracking_uri = tracker.uri

    @property
    def is_open(self) -> bool:
        """Whether `log_config` has found or made the run."""
        return self._run_id is not None

    @property
    def run_id(self) -> str:
        """MLflow's id of the run."""
        assert self._run_id is not None, "log_config comes first"
        return self._run_id

    def log_config(self, config: Mapping[str, Any]) -> None:
        """Opens the run of this configuration, and logs it whole as JSON and flat as parameters.

        The run of an earlier attempt is taken up again. Its parameters stay, as MLflow's parameters cannot change;
        only what does not decide the stage's output (CHANGEABLE) can differ from them.

        Raises:
            InputError: MLflow cannot be reached.
        """
        deciding = {name: value for name, value in config.items() if name not in CHANGEABLE}
        tags = self._tags | {CONFIG_TAG: hashlib.sha256(canonical_json(deciding)).hexdigest()}
        self._run_id = self._tracker.open_run(self.workflow, tags, f"{self.workflow}/{tags[STAGE_TAG]}")
        with _tolerant("config"):
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
        with _tolerant("tags"):
            for name, value in tags.items():
                self._client.set_tag(self.run_id, name, str(value))

    def log_file(self, path: Path, folder: str) -> None:
        """A file as an artifact."""
        with _tolerant(path.name):
            self._client.log_artifact(self.run_id, str(path), folder)

    def log_text(self, text: str, artifact: str) -> None:
        """A text, such as a table as CSV, as the artifact FOLDER/NAME."""
        with _tolerant(artifact):
            self._client.log_text(self.run_id, text, artifact)

    def log_picture(self, picture: Picture, artifact: str) -> None:
        """A picture as the PNG artifact FOLDER/NAME.png."""
        log_picture_to_run(self.tracking_uri, self.run_id, picture, artifact)


class Tracker:
    """MLflow for one work folder.

    Args:
        work: folder that holds the default store.
        uri: of the tracking server; None: MLFLOW_TRACKING_URI, or SQLite in `work`.

    Raises:
        InputError: MLflow has no store for such a URI.
    """

    def __init__(self, work: Path, uri: str | None = None) -> None:
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self.work = work.resolve()
        self.work.mkdir(parents=True, exist_ok=True)
        self.uri = uri or os.environ.get(TRACKING_VARIABLE) or f"sqlite:///{self.work / 'mlflow.db'}"
        with self.reaching():
            self.client = mlflow.MlflowClient(self.uri, self.uri)

    @contextlib.contextmanager
    def workflow_run(self, workflow: str, folder: Path) -> Iterator[str]:
        """The run of a workflow folder; FINISHED or FAILED when the block ends.

        Raises:
            InputError: MLflow cannot be reached.
        """
        run_id = self.open_run(workflow, {FOLDER_TAG: str(folder.resolve()), STAGE_TAG: "workflow"}, workflow)
        with self._status(lambda: run_id):
            yield run_id

    @contextlib.contextmanager
    def stage_run(self, workflow: str, parent: str, stage: str) -> Iterator[StageRun]:
        """A stage's child run of a workflow run; FINISHED or FAILED when the block ends."""
        run = StageRun(self, workflow, parent, stage)
        with self._status(lambda: run.run_id if run.is_open else None):
            yield run

    def open_run(self, experiment_name: str, tags: Mapping[str, str], run_name: str) -> str:
        """The run with these tags, RUNNING; a new one if there is none."""
        with self.reaching():
            experiment = self._experiment(experiment_name)
            found = self._found(experiment, tags)
            if found is None:
                created = self.client.create_run(experiment, tags=dict(tags), run_name=run_name)
                found = str(created.info.run_id)
            self.client.set_tag(found, CODE_TAG, code_version())
            self.client.update_run(found, status="RUNNING")
        return found

    def register(self, run: StageRun, name: str, checkpoint: Path, card: ModelCard) -> str:
        """Registers a trained model with its card, once per checkpoint; the alias latest-trained then means it.

        Returns:
            the version.

        Raises:
            InputError: MLflow cannot be reached.
        """
        digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        with self.reaching():
            return self._registered(name, digest) or self._new_version(run, name, checkpoint, digest, card)

    def fetch(self, uri: str, folder: Path) -> RegisteredVersion:
        """The version that models:/NAME@ALIAS or models:/NAME/VERSION means now, its checkpoint copied below `folder`.

        Raises:
            InputError: there is no such model, alias or version, its checkpoint is not the one that was registered, or
                MLflow cannot be reached.
        """
        name, version, digest = self._resolve(uri)
        own = folder / name / version
        try:
            with self._as_default():
                path = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=str(own)))
        except UNREACHED as error:
            raise InputError(f"model {uri}: version {version} has no readable artifacts ({_said(error)})") from error
        found = sorted(path.rglob("*.safetensors"))
        if not found:
            raise InputError(f"model {uri}: version {version} holds no checkpoint of this project")
        if digest and hashlib.sha256(found[0].read_bytes()).hexdigest() != digest:
            raise InputError(
                f"model {uri}: the checkpoint of version {version} is not the one that was registered; "
                "restore it in the artifact store, or take another version"
            )
        return RegisteredVersion(name, version, found[0])

    def _resolve(self, uri: str) -> tuple[str, str, str | None]:
        """Name, version, and the registered digest of its checkpoint, which a version made by other means lacks."""
        alias_at = re.fullmatch(r"models:/([^/:@]+)@([^/:@]+)", uri)
        version_of = re.fullmatch(r"models:/([^/:@]+)/(\d+)", uri)
        if alias_at is None and version_of is None:
            raise InputError(f"model {uri!r}: write models:/NAME@ALIAS or models:/NAME/VERSION")
        with self.reaching():
            try:
                if alias_at is not None:
                    found = self.client.get_model_version_by_alias(*alias_at.groups())
                else:
                    assert version_of is not None
                    found = self.client.get_model_version(*version_of.groups())
            except MlflowException as error:
                # Raises in its turn when the reason is that the registry cannot be reached.
                names = ", ".join(m.name for m in self.client.search_registered_models()) or "none"
                raise InputError(f"model {uri}: not in the registry {self.uri}; models there: {names}") from error
        return str(found.name), str(found.version), found.tags.get(CHECKPOINT_TAG)

    def _registered(self, name: str, digest: str) -> str | None:
        versions = self.client.search_model_versions(f"name = '{name}'")
        return next((str(v.version) for v in versions if v.tags.get(CHECKPOINT_TAG) == digest), None)

    def _new_version(self, run: StageRun, name: str, checkpoint: Path, digest: str, card: ModelCard) -> str:
        # The signature is given; an example would put an image into every model.
        warnings.filterwarnings("ignore", message=".*input example.*", category=UserWarning)
        with self._as_default(), mlflow.start_run(run_id=run.run_id), tempfile.TemporaryDirectory() as folder:
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
        version = str(info.registered_model_version)
        # MLflow ended the run; the stage is still going on.
        self.client.update_run(run.run_id, status="RUNNING")
        self.client.update_model_version(name, version, card.text()[:MAX_DESCRIPTION])
        for key, value in _card_tags(card).items():
            self.client.set_model_version_tag(name, version, key, value)
        self.client.set_registered_model_alias(name, TRAINED_ALIAS, version)
        # Last, since this tag says that nothing is left to do.
        self.client.set_model_version_tag(name, version, CHECKPOINT_TAG, digest)
        return version

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        has_server = urlparse(self.uri).scheme in ("http", "https")
        # A server knows where its artifacts go; without one MLflow would put them into the current folder.
        location = None if has_server else (self.work / "mlartifacts").as_uri()
        return str(self.client.create_experiment(name, artifact_location=location))

    def _found(self, experiment: str, tags: Mapping[str, str]) -> str | None:
        """Tags are compared here, because a path with quotes does not fit into MLflow's filter language."""
        query, page = f"tags.`{STAGE_TAG}` = '{tags[STAGE_TAG]}'", None
        while True:
            runs = self.client.search_runs([experiment], query, ViewType.ACTIVE_ONLY, page_token=page)
            for run in runs:
                if tags.items() <= run.data.tags.items():
                    return str(run.info.run_id)
            page = runs.token
            if not page:
                return None

    @contextlib.contextmanager
    def _status(self, run_id: Callable[[], str | None]) -> Iterator[None]:
        status = "FAILED"
        try:
            yield
            status = "FINISHED"
        finally:
            ended = run_id()
            if ended is not None:
                with _tolerant(f"the status {status}"):
                    self.client.set_terminated(ended, status)

    @contextlib.contextmanager
    def _as_default(self) -> Iterator[None]:
        """Registering and downloading ask MLflow's process-wide defaults, which are afterwards what they were."""
        before = {name: os.environ.get(name) for name in (TRACKING_VARIABLE, REGISTRY_VARIABLE)}
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        try:
            yield
        finally:
            # MLflow writes both into the environment, where the next Tracker would take them for the user's wish.
            mlflow.set_tracking_uri(before[TRACKING_VARIABLE])  # type: ignore[arg-type]  # None unsets it
            mlflow.set_registry_uri(before[REGISTRY_VARIABLE])  # type: ignore[arg-type]
            if before[REGISTRY_VARIABLE] is None:
                os.environ.pop(REGISTRY_VARIABLE, None)

    @contextlib.contextmanager
    def reaching(self) -> Iterator[None]:
        """For what MLflow must do: an InputError where it cannot be reached."""
        try:
            yield
        except UNREACHED as error:
            remedy = "or unset MLFLOW_TRACKING_URI to track in the work folder"
            raise InputError(
                f"MLflow at {self.uri}: cannot be used ({_said(error)}); when it can, the same command goes on from "
                f"here{', ' + remedy if TRACKING_VARIABLE in os.environ else ''}"
            ) from error


def log_to_run(uri: str, run_id: str, metrics: Mapping[str, float], step: int) -> None:
    """Numbers into a run from any process, under names cleaned of what MLflow does not take."""
    now = int(time.time() * 1000)
    batch = [Metric(_clean(name), float(value), now, step) for name, value in metrics.items()]
    with _tolerant("metrics"):
        mlflow.MlflowClient(uri).log_batch(run_id, metrics=batch)


def log_picture_to_run(uri: str, run_id: str, picture: Picture, artifact: str) -> None:
    """A picture into a run from any process, as the PNG artifact FOLDER/NAME.png."""
    with tempfile.TemporaryDirectory() as folder, _tolerant(artifact):
        path = Path(folder) / Path(artifact).name
        save_picture(picture, path)
        mlflow.MlflowClient(uri).log_artifact(run_id, str(path), str(Path(artifact).parent))


def log_text_to_run(uri: str, run_id: str, text: str, artifact: str) -> None:
    """A text into a run from any process, as the artifact FOLDER/NAME."""
    with _tolerant(artifact):
        mlflow.MlflowClient(uri).log_text(run_id, text, artifact)


@contextlib.contextmanager
def _tolerant(what: str) -> Iterator[None]:
    """What a failing server does not take is lost, with a warning."""
    try:
        yield
    except UNREACHED as error:
        _log.warning("MLflow did not take %s: %s", what, _said(error))


def _card_tags(card: ModelCard) -> dict[str, str]:
    """What of a card can be searched for and listed."""
    metrics = {_clean(METRIC_TAGS + name): f"{value:.6g}" for name, value in card.metrics.items()}
    return metrics | {_clean(DATASET_TAGS + d.name): d.digest for d in card.data} | {CODE_TAG: code_version()}


def _said(error: Exception) -> str:
    """An error as one short line."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:197]}..."


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
