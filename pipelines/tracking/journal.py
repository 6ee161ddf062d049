"""The journal of a run: everything that MLflow should know of it, kept in the work folder or bucket.

It is written first, and played into MLflow from there (dhpf.pipelines.tracking.player), so that nothing is lost while
MLflow is away. It is only ever added to: a numbered object for each record, and one for each file that a record brings.
Every attempt to run the workflow has a folder, in which each process that writes has its own:
ATTEMPT/WRITER/NUMBER.json.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from dhpf.errors import InputError
from dhpf.manifest import Damaged, damaged, find_json, read_json
from dhpf.storage import Location
from dhpf.storage.seal import sealed

JOURNALS = "journal"
"""Folder of all journals, in the work folder or bucket."""

DRIVER = "driver"
"""The writer of an attempt's first record; by name it comes before the workers."""

_REMEDY = "delete the folder of the journal: MLflow then misses what it had not been told yet; results are not touched"

_RECORD = re.compile(r"(?P<attempt>[0-9]{6})/(?P<writer>[a-z0-9-]+)/(?P<number>[0-9]{6,})\.json")

_FILE = re.compile(r"(?P<record>[0-9]{6}/[a-z0-9-]+/[0-9]{6,})-.+")


class Record(NamedTuple):
    """A record of a journal.

    Attributes:
        kind: what it says.
        run: the key of the run that it is about.
        when: in milliseconds since 1970.
        facts: what the kind needs.
    """

    kind: str
    run: str
    when: int
    facts: Mapping[str, Any]


class Journal:
    """The journal at a place, which need not have been begun."""

    def __init__(self, place: Location) -> None:
        self.place = place
        self._begun: Record | None = None

    def begin(self, experiment: str) -> Writer:
        """Begins another attempt, and the journal with the first one.

        Args:
            experiment: MLflow's name for the workflow.
        """
        while True:
            attempt = max((int(writer[:6]) for writer in self.counts()), default=0) + 1
            first = Record("attempt", self.identity() or uuid.uuid4().hex, now(), {"experiment": experiment})
            writer = Writer(self.place, attempt, DRIVER)
            if writer.took(first):
                return writer

    def identity(self) -> str | None:
        """The key of the workflow's run, under which MLflow finds it; None before the first attempt."""
        first = self._first()
        return None if first is None else first.run

    def experiment(self) -> str | None:
        """MLflow's name for the workflow; None before the first attempt."""
        first = self._first()
        return None if first is None else str(first.facts["experiment"])

    def _first(self) -> Record | None:
        if self._begun is None:
            content = find_json(self._place_of(f"{1:06}/{DRIVER}", 1), _REMEDY)
            self._begun = None if content is None else Record(**content)
        return self._begun

    def counts(self, attempt: int | None = None) -> dict[str, int]:
        """How many records each writer, ATTEMPT/WRITER, has written, in the order in which they began.

        Args:
            attempt: of these alone.
        """
        prefix = "" if attempt is None else f"{attempt:06}/"
        counts: dict[str, int] = {}
        for entry in (self.place / prefix if prefix else self.place).entries():
            found = _RECORD.fullmatch(prefix + entry.key)
            if found:
                writer = f"{found['attempt']}/{found['writer']}"
                counts[writer] = max(counts.get(writer, 0), int(found["number"]))
        return dict(sorted(counts.items()))

    def read(self, writer: str, number: int) -> Record:
        """A record of the writer ATTEMPT/WRITER.

        Raises:
            InputError: it is gone or damaged.
        """
        return Record(**read_json(self._place_of(writer, number), _REMEDY))

    def read_file(self, record: Record) -> bytes:
        """The file that a record brings.

        Raises:
            Damaged: it is not as it was written.
            InputError: it is gone.
        """
        place = self.place / record.facts["file"]
        content: bytes = place.read()
        wanted = record.facts.get("file_sha256")
        if wanted is not None and hashlib.sha256(content).hexdigest() != wanted:
            raise damaged(place, "MLflow goes without it")
        return content

    def check(self, key: str) -> None:
        """Reads a record, or the file of one, that lies at this key below the journal.

        Raises:
            Damaged: it is not as it was written.
        """
        found = _FILE.fullmatch(key)
        if found is None:
            read_json(self.place / key, _REMEDY)
            return
        try:
            content = find_json(self.place / f"{found['record']}.json")
        except Damaged:  # its own check says so
            return
        if content is not None and content["facts"].get("file") == key:
            self.read_file(Record(**content))

    def _place_of(self, writer: str, number: int) -> Location:
        return self.place / f"{writer}/{number:06}.json"


class Writer:
    """One process's part of an attempt. Sent to another process, it is another writer of the same attempt there."""

    def __init__(self, place: Location, attempt: int, name: str) -> None:
        self.place, self.attempt, self.name = place, attempt, name
        self._number, self._lock = 0, threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return _writer_elsewhere, (self.place, self.attempt)

    def took(self, record: Record) -> bool:
        """Writes the next record unless another process has written one of this name."""
        content = sealed(json.dumps(record._asdict()).encode())
        if not (self._own / f"{self._number + 1:06}.json").put_if_absent(content):
            return False
        self._number += 1
        return True

    def write(self, kind: str, run: str, facts: Mapping[str, Any], *, when: int | None = None) -> None:
        """Writes a record about a run.

        Raises:
            InputError: the work folder or bucket cannot be written.
        """
        with self._lock:
            self._write(Record(kind, run, now() if when is None else when, facts))

    def write_with_file(self, kind: str, run: str, facts: Mapping[str, Any], name: str, content: bytes) -> None:
        """Writes a record whose fact `file` is the key of a file with this content, which lies beside it."""
        with self._lock:
            key = f"{self._number + 1:06}-{name}"
            (self._own / key).put(content)
            own = f"{self.attempt:06}/{self.name}/{key}"
            digest = hashlib.sha256(content).hexdigest()
            self._write(Record(kind, run, now(), {**facts, "file": own, "file_sha256": digest}))

    def _write(self, record: Record) -> None:
        if not self.took(record):
            raise InputError(f"{self._own}: another process writes this part of the journal")

    @property
    def _own(self) -> Location:
        return self.place / f"{self.attempt:06}/{self.name}"


def _writer_elsewhere(place: Location, attempt: int) -> Writer:
    return Writer(place, attempt, f"worker-{uuid.uuid4().hex[:12]}")


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def journal_place(work: Location, folder: Location) -> Location:
    """Where the journal of a run's folder lies: in the work folder or bucket, beside what the stages write."""
    name = folder.name
    if str(work / name) != str(folder):
        name += f"-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    return work / JOURNALS / name


def journals(work: Location) -> list[Journal]:
    """All journals of a work folder or bucket."""
    names = sorted({entry.key.partition("/")[0] for entry in (work / JOURNALS).entries()})
    return [Journal(work / JOURNALS / name) for name in names]
