"""Runs of workflows and of their stages.

A workflow folder has one run, with one child run per stage and configuration. They are found again when the workflow
goes on, so that a resumed workflow stays one run. All that is logged goes into the journal, and from there into MLflow
while the run goes on; if MLflow is away, later.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from dhpf.errors import shown
from dhpf.manifest import canonical_json
from dhpf.pipelines.outputs.code_version import code_version
from dhpf.pipelines.outputs.store import PlanConflict
from dhpf.pipelines.tracking.journal import Journal, Writer, journal_place
from dhpf.pipelines.tracking.live import played_live
from dhpf.pipelines.tracking.mlflow_runs import AS_BEFORE
from dhpf.pipelines.tracking.model_card import ModelCard
from dhpf.pipelines.tracking.player import Away, Player
from dhpf.pipelines.tracking.registering import model_facts, registered_version
from dhpf.pipelines.tracking.run_log import RunLog
from dhpf.pipelines.tracking.tracker import CODE_TAG, Tracker, UnusableStore
from dhpf.storage import Location
from dhpf.storage.copies import local_file

_log = logging.getLogger(__name__)

FOLDER_TAG, STAGE_TAG, CONFIG_TAG = "dhpf.folder", "dhpf.stage", "dhpf.config"


class DriverRun(RunLog):
    """A run whose driver this process is: it can ask MLflow what became of what it has logged."""

    def __init__(self, writer: Writer, key: str, tracker: Tracker, player: Player) -> None:
        super().__init__(writer, key)
        self._tracker, self._player = tracker, player

    @property
    def run_id(self) -> str:
        """MLflow's id of the run, once all that was logged so far is there.

        Raises:
            Away: MLflow does not answer.
        """
        self._player.play()
        run_id = self._player.run_id(self.key)
        assert run_id is not None, "log_config comes first"
        return run_id

    def picture_folder(self) -> str | None:
        """Where the run's pictures lie: a path in the work folder, or a URI of the server; None if MLflow has none."""
        with contextlib.suppress(Away), self._player.reached():
            client, run_id = self._tracker.client, self.run_id
            if client.list_artifacts(run_id, "pictures"):
                uri = f"{client.get_run(run_id).info.artifact_uri}/pictures"
                return url2pathname(urlparse(uri).path) if urlparse(uri).scheme == "file" else uri
        return None

    def page(self) -> str:
        """Path of the run's page on MLflow's server; "" where the server does not say it."""
        with contextlib.suppress(Away), self._player.reached():
            run_id = self.run_id
            return f"experiments/{self._tracker.client.get_run(run_id).info.experiment_id}/runs/{run_id}"
        return ""

    def open(self, name: str, tags: Mapping[str, str], parent: str | None) -> None:
        """Sets the run to RUNNING, a new one or that of an earlier attempt."""
        told = {tag: shown(value) for tag, value in {**tags, CODE_TAG: code_version()}.items()}
        facts = {"name": shown(name), "tags": told, "parent": parent}
        self.writer.write("run", self.key, facts)

    @contextlib.contextmanager
    def ended(self) -> Iterator[None]:
        """Ends the run as the block ends; a finished run whose settings are refused now is what it was."""
        status = "FAILED"
        try:
            yield
            status = "FINISHED"
        except PlanConflict:
            status = AS_BEFORE
            raise
        finally:
            if self.key:
                self.writer.write("end", self.key, {"status": status})


class StageRun(DriverRun):
    """A child run, into which one stage logs. `log_config` is called first, because it decides which run this is."""

    def __init__(self, parent: DriverRun, stage: str, title: str) -> None:
        super().__init__(parent.writer, "", parent._tracker, parent._player)
        self._parent, self._stage, self._title = parent.key, stage, title

    def log_config(self, config: Mapping[str, Any], deciding: Mapping[str, Any] | None = None) -> None:
        """Opens the run of this configuration, and logs it whole as JSON and flat as parameters.

        The run of an earlier attempt is taken up again. Its parameters stay, as MLflow's parameters cannot change;
        only what does not decide the stage's output can differ from them.

        Args:
            deciding: what tells this run from others; None for the whole configuration.
        """
        digest = hashlib.sha256(canonical_json(config if deciding is None else deciding)).hexdigest()
        self.key = f"{self._parent}/{self._stage}/{digest[:16]}"
        self.open(self._title, {STAGE_TAG: self._stage, CONFIG_TAG: digest}, self._parent)
        self.log_params(config)

    def for_workers(self) -> RunLog:
        """The run as a worker logs to it."""
        return RunLog(self.writer, self.key)

    def register(self, name: str, checkpoint: Location, card: ModelCard) -> str | None:
        """Registers a trained model with its card, once per checkpoint; the alias latest-trained then means it.

        Returns:
            the version; None where MLflow does not answer, and will have it later.
        """
        facts = model_facts(name, local_file(checkpoint), card) | {"at": str(checkpoint)}
        self.writer.write_with_file("model", self.key, facts, "MODEL_CARD.md", shown(card.text()).encode())
        with contextlib.suppress(Away), self._player.reached():
            self._player.play()
            return registered_version(self._tracker, name, facts["digest"])
        return None


class WorkflowLog(DriverRun):
    """The run of a workflow folder."""

    def __init__(self, writer: Writer, key: str, tracker: Tracker, player: Player, title: str) -> None:
        super().__init__(writer, key, tracker, player)
        self._title = title

    @contextlib.contextmanager
    def stage(self, stage: str) -> Iterator[StageRun]:
        """A stage's child run; FINISHED or FAILED when the block ends."""
        run = StageRun(self, stage, f"{self._title}/{stage}")
        with run.ended():
            yield run


@contextlib.contextmanager
def workflow_run(tracker: Tracker, workflow: str, folder: Location) -> Iterator[WorkflowLog]:
    """The run of a workflow folder; FINISHED or FAILED when the block ends.

    Stages' runs that a killed driver has left RUNNING are KILLED; those that go on are then opened again.

    Raises:
        InputError: MLflow has no such store, or the journal cannot be written.
    """
    try:
        tracker.require_usable()
    except UnusableStore as error:
        _log.warning("%s; the run goes on, and its journal in %s keeps all of it", error, tracker.work)
    journal = Journal(journal_place(tracker.work, folder))
    writer = journal.begin(workflow)
    key, player = journal.identity(), Player(tracker, journal)
    assert key is not None
    run = WorkflowLog(writer, key, tracker, player, folder.name)
    with played_live(player, tracker), run.ended():
        run.open(folder.name, {FOLDER_TAG: str(folder), STAGE_TAG: "workflow"}, None)
        yield run
