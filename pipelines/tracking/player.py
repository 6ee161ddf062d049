"""Plays a run's journal into MLflow: while the run goes on, when the next one starts, and by `dhpf track sync`.

Playing again, after whatever interruption, gives the same: runs are found by the journal's keys for them, MLflow itself
keeps an equal metric, parameter, tag or data set once, and an artifact of the same name is replaced. A tag of the
workflow's run says how far each writer's records have been played; it only saves work.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from dhpf.errors import InputError
from dhpf.pipelines.tracking.journal import DRIVER, Journal, Record
from dhpf.pipelines.tracking.mlflow_runs import MlflowRuns
from dhpf.pipelines.tracking.reachable import require_answer
from dhpf.pipelines.tracking.tracker import Tracker, short_text
from dhpf.storage.read_ahead import read_ahead

PLAYED_TAG = "dhpf.played"

METRIC_RECORDS_PER_BATCH = 50
"""Records whose metrics are given to MLflow together."""

MOST_WRITERS = 150
"""Writers that the tag of what has been played names, so that MLflow's database takes it: 8000 characters."""

PLAYING_THREAD = "dhpf-journal"
"""Name of the thread that plays beside a run."""

_FILE_KINDS = ("artifact", "model")
"""Kinds of records that need the store of artifacts. They are played last: without it the rest is still there."""

_ENTRIES, _FILES = 0, 1
"""What a record is played as; positions in a writer's marks."""


class Away(InputError):
    """MLflow, or the store of its artifacts, does not answer."""


@dataclass
class Played:
    """How many records of each kind a call has played."""

    entries: int = 0
    files: int = 0


class Player:
    """Plays one journal into one MLflow; of several threads, one at a time.

    Args:
        tracker: MLflow.
        journal: of a workflow's folder.
    """

    def __init__(self, tracker: Tracker, journal: Journal) -> None:
        self._tracker, self._journal = tracker, journal
        self._lock = threading.Lock()
        self._runs = MlflowRuns(tracker, journal)
        self._played: dict[str, list[int]] | None = None
        self._attempt: int | None = None
        self._failed = False

    def play(self) -> Played:
        """Plays what was not played yet.

        Raises:
            Away: MLflow does not answer; what was played until then is not played again.
        """
        with self._lock, self.reached():
            return self._play()

    def run_id(self, key: str) -> str | None:
        """MLflow's id of the run that the journal has this key for; None where it has not been played.

        Raises:
            Away: MLflow does not answer.
        """
        with self._lock, self.reached():
            return self._runs.found_id(key)

    @contextlib.contextmanager
    def reached(self) -> Iterator[None]:
        """Turns a failure of MLflow within the block into Away; once it has failed, it is asked whether it answers."""
        try:
            if self._failed:
                require_answer(self._tracker.uri)
            yield
        except InputError:
            raise
        except Exception as error:  # MLflow's own, those of requests, and those of each kind of artifact store
            self._failed = True
            raise Away(f"MLflow at {self._tracker.uri}: does not answer ({short_text(error)})") from error
        self._failed = False

    def _play(self) -> Played:
        played, done = self._played_before(), Played()
        counts, before = self._journal.counts(self._attempt), json.dumps(played)
        written = {writer: self._read(writer, played.setdefault(writer, [0, 0]), counts[writer]) for writer in counts}
        try:
            for writer in written:
                done.entries += self._play_records(writer, written[writer], played[writer], _ENTRIES)
            for writer in written:
                done.files += self._play_records(writer, written[writer], played[writer], _FILES)
        finally:
            if json.dumps(played) != before:
                self._keep_played(played)
        if counts:
            self._attempt = int(max(counts).partition("/")[0])  # the attempts before it have ended
        return done

    def _read(self, writer: str, marks: Sequence[int], last: int) -> list[tuple[int, Record]]:
        """The records of a writer that are to be played, each with its number."""
        numbers = range(min(marks) + 1, last + 1)
        return list(zip(numbers, read_ahead(partial(self._journal.read, writer), numbers), strict=True))

    def _play_records(self, writer: str, records: Sequence[tuple[int, Record]], marks: list[int], part: int) -> int:
        """Plays a writer's entries, or its files.

        Args:
            marks: numbers of the last record whose entries, and of the last whose files have been played.
        """
        todo, num_played = [(number, record) for number, record in records if number > marks[part]], 0
        for group in _grouped([(n, record) for n, record in todo if (record.kind in _FILE_KINDS) == (part == _FILES)]):
            first = group[0][1]
            run_id = "" if first.kind in ("attempt", "run") else self._runs.found_id(first.run)
            if run_id is not None:
                self._runs.apply(run_id, [record for _, record in group])
                num_played += len(group)
            elif not writer.endswith(DRIVER):  # the driver's record of its beginning is later than the listing
                return num_played
            marks[part] = group[-1][0]  # also where somebody has deleted the run in MLflow
        if todo:
            marks[part] = todo[-1][0]
        return num_played

    # -- what has been played -----------------------------------------------------------------------------------

    def _played_before(self) -> dict[str, list[int]]:
        if self._played is None:
            key = self._journal.identity()
            run = None if key is None else self._runs.found(key)
            self._played = {} if run is None else json.loads(run.data.tags.get(PLAYED_TAG, "{}"))
        return self._played

    def _keep_played(self, played: dict[str, list[int]]) -> None:
        key = self._journal.identity()
        run_id = None if key is None else self._runs.found_id(key)
        if run_id is not None:
            newest = dict(sorted(played.items())[-MOST_WRITERS:])
            self._tracker.client.set_tag(run_id, PLAYED_TAG, json.dumps(newest, separators=(",", ":")))


def _grouped(records: Sequence[tuple[int, Record]]) -> Iterator[list[tuple[int, Record]]]:
    """Metrics of one run that follow each other, together; every other record alone."""
    group: list[tuple[int, Record]] = []
    for number, record in records:
        last = group[-1][1] if group else record
        together = record.kind == last.kind == "metrics" and record.run == last.run
        if group and (not together or len(group) == METRIC_RECORDS_PER_BATCH):
            yield group
            group = []
        group.append((number, record))
    if group:
        yield group
