"""Runs of workflows and of their stages.

A workflow folder has one run, with one child run per stage and configuration. They are found again when the workflow
goes on, so that a resumed workflow stays one run. Other processes, such as training workers, write into a run by its
id. When the server fails to take an entry, it is lost with a warning, and the stage goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import mlflow
from mlflow.entities import Metric, Run, ViewType

from dhpf.drawing import Picture, save_picture
from dhpf.manifest import canonical_json
from dhpf.pipelines.outputs.code_version import code_version
from dhpf.pipelines.outputs.store import PlanConflict
from dhpf.pipelines.tracking.datasets import ReadDataset
from dhpf.pipelines.tracking.tracker import CODE_TAG, UNREACHED, Tracker, all_pages, short_text
from dhpf.storage import Location

FOLDER_TAG, STAGE_TAG, CONFIG_TAG, PARENT_TAG = "dhpf.folder", "dhpf.stage", "dhpf.config", "mlflow.parentRunId"
NOTE_TAG = "mlflow.note.content"

MAX_NOTE = 5000
"""Characters of a description; MLflow's database takes no longer tag."""

_log = logging.getLogger(__name__)


class LoggedRun:
    """A run that this process logs to."""

    def __init__(self, tracker: Tracker, opened: OpenedRun | None = None) -> None:
        self._tracker, self._client = tracker, tracker.client
        self.opened = opened
        self.tracking_uri = tracker.uri

    @property
    def run_id(self) -> str:
        """MLflow's id of the run."""
        assert self.opened is not None, "log_config comes first"
        return self.opened.run_id

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Writes numbers; characters that MLflow does not allow in names are replaced."""
        log_to_run(self.tracking_uri, self.run_id, metrics, step)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Writes tags: facts such as the dataset's fingerprint."""
        with tolerant("tags"):
            for name, value in tags.items():
                self._client.set_tag(self.run_id, name, str(value))

    def describe(self, text: str) -> None:
        """Writes the run's description, in Markdown, which MLflow shows first."""
        self.set_tags({NOTE_TAG: text[:MAX_NOTE]})

    def log_datasets(self, datasets: Sequence[ReadDataset]) -> None:
        """Writes which data the run reads: by name, digest and location, and as tags with the whole digest."""
        self.set_tags({f"dataset {dataset.name}": dataset.digest for dataset in datasets})
        with tolerant("datasets"):
            self._client.log_inputs(self.run_id, [dataset.as_input() for dataset in datasets])

    def log_file(self, path: Path, folder: str) -> None:
        """Writes a file as an artifact."""
        with tolerant(path.name):
            self._client.log_artifact(self.run_id, str(path), folder)

    def log_text(self, text: str, artifact: str) -> None:
        """Writes a text, such as a table as CSV, as the artifact FOLDER/NAME."""
        log_text_to_run(self.tracking_uri, self.run_id, text, artifact)

    def log_picture(self, picture: Picture, artifact: str) -> None:
        """Writes a picture as the PNG artifact FOLDER/NAME.png."""
        log_picture_to_run(self.tracking_uri, self.run_id, picture, artifact)

    def picture_folder(self) -> str | None:
        """Where the run's pictures lie: a path in the work folder, or a URI of the server; None if there are none."""
        with tolerant("a question about pictures"):
            if self._client.list_artifacts(self.run_id, "pictures"):
                uri = f"{self._client.get_run(self.run_id).info.artifact_uri}/pictures"
                return url2pathname(urlparse(uri).path) if urlparse(uri).scheme == "file" else uri
        return None


class StageRun(LoggedRun):
    """A child run, into which one stage logs. `log_config` is called first, because it decides which run this is."""

    def __init__(self, tracker: Tracker, workflow: str, parent: str, stage: str, title: str) -> None:
        super().__init__(tracker)
        self.workflow, self._tags = workflow, {PARENT_TAG: parent, STAGE_TAG: stage}
        self._title = title

    @property
    def is_open(self) -> bool:
        """Whether `log_config` has found or made the run."""
        return self.opened is not None

    def log_config(self, config: Mapping[str, Any], deciding: Mapping[str, Any] | None = None) -> None:
        """Opens the run of this configuration, and logs it whole as JSON and flat as parameters.

        The run of an earlier attempt is taken up again. Its parameters stay, as MLflow's parameters cannot change;
        only what does not decide the stage's output can differ from them.

        Args:
            deciding: what tells this run from others; None for the whole configuration.

        Raises:
            InputError: MLflow cannot be reached.
        """
        identity = config if deciding is None else deciding
        tags = self._tags | {CONFIG_TAG: hashlib.sha256(canonical_json(identity)).hexdigest()}
        self.opened = _open_run(self._tracker, self.workflow, tags, self._title)
        with tolerant("config"):
            self._client.log_dict(self.run_id, dict(config), "config.json")
            known = self._client.get_run(self.run_id).data.params
            for name, value in _flatten(config).items():
                if name not in known:
                    self._client.log_param(self.run_id, name, value)


@contextlib.contextmanager
def workflow_run(tracker: Tracker, workflow: str, folder: Location) -> Iterator[LoggedRun]:
    """The run of a workflow folder; FINISHED or FAILED when the block ends.

    Stages' runs that a killed driver has left RUNNING are KILLED; those that go on are then opened again.

    Raises:
        InputError: MLflow cannot be reached.
    """
    opened = _open_run(tracker, workflow, {FOLDER_TAG: str(folder), STAGE_TAG: "workflow"}, folder.name)
    _close_left_running(tracker, workflow, opened.run_id)
    with _status(tracker, lambda: opened):
        yield LoggedRun(tracker, opened)


@contextlib.contextmanager
def stage_run(
    tracker: Tracker, workflow: str, parent: LoggedRun, stage: str, run_name: str | None = None
) -> Iterator[StageRun]:
    """A stage's child run of a workflow run; FINISHED or FAILED when the block ends.

    Args:
        run_name: of the workflow's run, where that is not the workflow's name.
    """
    run = StageRun(tracker, workflow, parent.run_id, stage, f"{run_name or workflow}/{stage}")
    with _status(tracker, lambda: run.opened):
        yield run


def run_page(tracker: Tracker, run: LoggedRun) -> str:
    """Path of a run's page on MLflow's server; "" where the server does not say it."""
    try:
        return f"experiments/{tracker.client.get_run(run.run_id).info.experiment_id}/runs/{run.run_id}"
    except UNREACHED:
        return ""


@dataclass(frozen=True)
class OpenedRun:
    """A run that this process has set to RUNNING.

    Attributes:
        was_finished: whether an earlier attempt had finished it.
    """

    run_id: str
    was_finished: bool


def _open_run(tracker: Tracker, experiment_name: str, tags: Mapping[str, str], run_name: str) -> OpenedRun:
    """The run with these tags, RUNNING; a new one if there is none."""
    with tracker.reaching():
        experiment = _experiment(tracker, experiment_name)
        found = _found(tracker, experiment, tags)
        if found is None:
            found = tracker.client.create_run(experiment, tags=dict(tags), run_name=run_name)
        opened = OpenedRun(str(found.info.run_id), found.info.status == "FINISHED")
        tracker.client.set_tag(opened.run_id, CODE_TAG, code_version())
        tracker.client.update_run(opened.run_id, status="RUNNING")
    return opened


def _close_left_running(tracker: Tracker, workflow: str, parent: str) -> None:
    query, client = f"tags.`{PARENT_TAG}` = '{parent}' and attributes.status = 'RUNNING'", tracker.client
    with tolerant("the status KILLED"):
        experiment = _experiment(tracker, workflow)
        left = list(all_pages(lambda token: client.search_runs([experiment], query, page_token=token)))
        for run in left:
            client.set_terminated(run.info.run_id, "KILLED")


def _experiment(tracker: Tracker, name: str) -> str:
    found = tracker.client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    # A server knows where its artifacts go; without one MLflow would put them into the current folder.
    location = None if tracker.artifacts is None else tracker.artifacts.as_uri()
    return str(tracker.client.create_experiment(name, artifact_location=location))


def _found(tracker: Tracker, experiment: str, tags: Mapping[str, str]) -> Run | None:
    """The run with these tags; compared here, since MLflow's filters cannot hold a path with quotes."""
    query, client = f"tags.`{STAGE_TAG}` = '{tags[STAGE_TAG]}'", tracker.client
    runs = all_pages(lambda token: client.search_runs([experiment], query, ViewType.ACTIVE_ONLY, page_token=token))
    return next((run for run in runs if tags.items() <= run.data.tags.items()), None)


@contextlib.contextmanager
def _status(tracker: Tracker, opened: Callable[[], OpenedRun | None]) -> Iterator[None]:
    """Ends a run as the block ends; a finished run whose settings are refused now is what it was."""
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except PlanConflict:
        run = opened()
        status = "FINISHED" if run is not None and run.was_finished else "FAILED"
        raise
    finally:
        run = opened()
        if run is not None:
            with tolerant(f"the status {status}"):
                tracker.client.set_terminated(run.run_id, status)


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[clean_name(f"{prefix}{key}")] = value if isinstance(value, str) else json.dumps(value)
    return flat


# -- entries of a run, written from any process ------------------------------------------------------------------


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
