"""What each kind of a journal's records does to the runs in MLflow; doing it again changes nothing."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TypeVar

from mlflow.entities import LifecycleStage, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException

from dhpf.manifest import Damaged
from dhpf.pipelines.tracking.datasets import ReadDataset
from dhpf.pipelines.tracking.journal import Journal, Record
from dhpf.pipelines.tracking.registering import register_model
from dhpf.pipelines.tracking.tracker import Tracker, all_pages, short_text
from dhpf.storage import location_of

KEY_TAG, PARENT_TAG = "dhpf.run", "mlflow.parentRunId"
WAS_FINISHED_TAG = "dhpf.was_finished"
"""Whether an attempt before this one had finished the run."""

AS_BEFORE = "AS BEFORE"
"""Status of a run whose settings were refused: FINISHED if it was, FAILED otherwise."""

MOST_PER_BATCH, MOST_METRICS_PER_BATCH = 100, 1000
"""Parameters or tags, and metrics, that MLflow takes at once."""

_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS")
"""MLflow's answers that it will give again."""

_log = logging.getLogger(__name__)

Entry = TypeVar("Entry")


class MlflowRuns:
    """The runs of a journal in MLflow, which finds them by the journal's keys.

    Args:
        tracker: MLflow.
        journal: of a workflow's folder.
    """

    def __init__(self, tracker: Tracker, journal: Journal) -> None:
        self._tracker, self._journal = tracker, journal
        self._ids: dict[str, str] = {}
        self._apply: MappingProxyType[str, Callable[[str, Sequence[Record]], object]] = MappingProxyType(
            {
                "attempt": lambda *_: None,
                "run": self._open,
                "params": self._params,
                "metrics": self._metrics,
                "tags": self._tags,
                "datasets": self._datasets,
                "end": self._end,
                "artifact": self._artifact,
                "model": self._model,
            }
        )

    def apply(self, run_id: str, records: Sequence[Record]) -> None:
        """Does what records say: one record, or several of metrics of one run.

        What MLflow would refuse each time is left out, with a warning.
        """
        with _refusals(records[0]):
            self._apply[records[0].kind](run_id, records)

    def found_id(self, key: str) -> str | None:
        """MLflow's id of the run with this key."""
        if key not in self._ids:
            run = self.found(key)
            if run is not None:
                self._ids[key] = str(run.info.run_id)
        return self._ids.get(key)

    def found(self, key: str) -> Run | None:
        """The run with this key."""
        query = f"tags.`{KEY_TAG}` = '{key}'"
        return next(iter(self._tracker.client.search_runs([self._experiment()], query, ViewType.ACTIVE_ONLY)), None)

    def _experiment(self) -> str:
        name = self._journal.experiment()
        assert name is not None, "a journal that has records has been begun"
        found = self._tracker.client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage == LifecycleStage.DELETED:
                _log.warning("MLflow's experiment %s was deleted; it is restored, since a run of it goes on", name)
                self._tracker.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        # A server knows where its artifacts go; without one MLflow would put them into the current folder.
        artifacts = self._tracker.artifacts
        location = None if artifacts is None else artifacts.as_uri()
        return str(self._tracker.client.create_experiment(name, artifact_location=location))

    def _open(self, _: str, records: Sequence[Record]) -> None:
        """Makes or finds a run, and sets it to RUNNING; for a workflow's run the children left RUNNING are KILLED."""
        (record,) = records
        parent = record.facts["parent"]
        tags = dict(record.facts["tags"]) | {KEY_TAG: record.run}
        if parent is not None:
            tags[PARENT_TAG] = str(self.found_id(parent))
        run = self.found(record.run)
        if run is None:
            run = self._tracker.client.create_run(self._experiment(), record.when, tags, record.facts["name"])
        elif run.info.status != "RUNNING":
            tags[WAS_FINISHED_TAG] = str(run.info.status == "FINISHED")
        run_id = self._ids[record.run] = str(run.info.run_id)
        self._log_tags(run_id, tags)
        self._tracker.client.update_run(run_id, status="RUNNING")
        if parent is None:
            self._close_left_running(run_id, record.when)

    def _close_left_running(self, parent: str, when: int) -> None:
        query = f"tags.`{PARENT_TAG}` = '{parent}' and attributes.status = 'RUNNING'"
        experiment = [self._experiment()]
        for run in list(all_pages(lambda token: self._tracker.client.search_runs(experiment, query, page_token=token))):
            self._tracker.client.set_terminated(run.info.run_id, "KILLED", end_time=when)

    def _end(self, run_id: str, records: Sequence[Record]) -> None:
        (record,) = records
        status = record.facts["status"]
        if status == AS_BEFORE:
            was = self._tracker.client.get_run(run_id).data.tags.get(WAS_FINISHED_TAG)
            status = "FINISHED" if was == str(True) else "FAILED"
        self._tracker.client.set_terminated(run_id, status, end_time=record.when)

    def _params(self, run_id: str, records: Sequence[Record]) -> None:
        """Parameters stay as they were first, as MLflow's parameters cannot change."""
        known = self._tracker.client.get_run(run_id).data.params
        new = [Param(name, value) for r in records for name, value in r.facts["params"].items() if name not in known]
        for batch in _batches(new, MOST_PER_BATCH):
            self._tracker.client.log_batch(run_id, params=batch)

    def _metrics(self, run_id: str, records: Sequence[Record]) -> None:
        entries = [
            Metric(name, value, record.when, record.facts["step"])
            for record in records
            for name, value in record.facts["metrics"].items()
        ]
        for batch in _batches(entries, MOST_METRICS_PER_BATCH):
            try:
                self._tracker.client.log_batch(run_id, metrics=batch)
            except MlflowException as error:
                if error.error_code not in _REFUSALS or len(batch) == 1:
                    raise
                for metric in batch:  # one that is refused costs no other
                    with _refusals(records[0], metric.key):
                        self._tracker.client.log_batch(run_id, metrics=[metric])

    def _tags(self, run_id: str, records: Sequence[Record]) -> None:
        self._log_tags(run_id, {name: value for record in records for name, value in record.facts["tags"].items()})

    def _log_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        for batch in _batches([RunTag(name, value) for name, value in tags.items()], MOST_PER_BATCH):
            self._tracker.client.log_batch(run_id, tags=batch)

    def _datasets(self, run_id: str, records: Sequence[Record]) -> None:
        datasets = [ReadDataset(**facts).as_input() for record in records for facts in record.facts["datasets"]]
        self._tracker.client.log_inputs(run_id, datasets)

    def _artifact(self, run_id: str, records: Sequence[Record]) -> None:
        (record,) = records
        artifact = PurePosixPath(record.facts["artifact"])
        with self._file(record) as path:
            named = path.rename(path.with_name(artifact.name))
            self._tracker.client.log_artifact(
                run_id, str(named), str(artifact.parent) if artifact.parent.name else None
            )

    def _model(self, run_id: str, records: Sequence[Record]) -> None:
        (record,) = records
        try:
            card = self._journal.read_file(record).decode()
        except Damaged as error:
            card = f"The card of this model is lost: {error}."
        with self._file(record) as checkpoint:
            if hashlib.sha256(checkpoint.read_bytes()).hexdigest() != record.facts["digest"]:
                raise _Gone(f"{record.facts['at']} is another checkpoint than it was")
            register_model(self._tracker, run_id, record.facts, card, checkpoint)

    @contextlib.contextmanager
    def _file(self, record: Record) -> Iterator[Path]:
        """A copy of a record's file, in a folder of its own; what lies at a location of the work, or in the journal."""
        at = record.facts.get("at")
        place = self._journal.place / record.facts["file"] if at is None else location_of(at)
        if not place.exists():
            raise _Gone(f"{place} is gone")
        try:
            content = self._journal.read_file(record) if at is None else place.read()
        except Damaged as error:
            raise _Gone(str(error)) from error
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "file"
            copy.write_bytes(content)
            yield copy


class _Gone(Exception):
    """What a record names has been deleted or damaged since."""


@contextlib.contextmanager
def _refusals(record: Record, what: str | None = None) -> Iterator[None]:
    """Turns what would fail each time into a warning that names what MLflow lacks."""
    try:
        yield
    except (MlflowException, _Gone) as error:
        if isinstance(error, MlflowException) and error.error_code not in _REFUSALS:
            raise
        said = what or record.facts.get("artifact", record.kind)
        _log.warning("MLflow does not take %s: %s", said, short_text(error))


def _batches(entries: Sequence[Entry], most: int) -> Iterator[Sequence[Entry]]:
    return (entries[begin : begin + most] for begin in range(0, len(entries), most))
