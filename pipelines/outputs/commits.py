"""The commits of a stage output: which tasks are done, and what each gave.

A commit is an object of its own, because only so exactly one run of a task can create it. For a driver that goes on
where another stopped, commits are also gathered, many in one object; it reads those, and by themselves only the commits
that were not gathered yet.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping

from dhpf.manifest import (
    CommitLines,
    CommitRecord,
    canonical_json,
    commit_line,
    commit_of_line,
    commit_record,
    damaged,
    find_json,
    read_json,
)
from dhpf.storage import Location
from dhpf.storage.location import gone
from dhpf.storage.read_ahead import find_ahead

COMMITS, GATHERED = "commits", "gathered"

GATHERED_AT_ONCE = 1000
"""Commits that are gathered in one object."""


class Commits(Mapping[str, CommitRecord]):
    """The commits that this process knows of, by their tasks; they never change, so each is read once.

    Args:
        root: of the output.
    """

    def __init__(self, root: Location) -> None:
        self._root = root
        self._lines: dict[str, bytes] = {}
        self._not_gathered: list[bytes] = []

    def __getitem__(self, task: str) -> CommitRecord:
        return commit_of_line(self._lines[task])

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, task: object) -> bool:
        return task in self._lines

    def in_order(self, tasks: Iterable[str]) -> CommitLines:
        """The commits of these tasks."""
        return CommitLines(self._lines[task] for task in tasks)

    def put(self, commit: CommitRecord) -> CommitRecord:
        """Makes it the commit of its task, unless there is one; returns the one that counts."""
        place = self._place(commit.task)
        if place.put_if_absent(canonical_json(vars(commit))):
            return commit
        return commit_record(read_json(place), place)

    def find(self, task: str) -> CommitRecord | None:
        """The commit of a task as the store has it, or None while the task is not done."""
        place = self._place(task)
        record = find_json(place)
        return None if record is None else commit_record(record, place)

    def done(self) -> set[str]:
        """The tasks that are done, as the store lists them."""
        return {entry.key.removesuffix(".json") for entry in (self._root / COMMITS).entries()}

    def learn(self) -> None:
        """Reads the commits that are not known yet.

        Raises:
            InputError: one is damaged.
        """
        unknown = self.done() - self._lines.keys()
        if unknown:
            places = [self._root / GATHERED / entry.key for entry in (self._root / GATHERED).entries()]
            for place, content in zip(places, find_ahead(places), strict=True):
                self._know((content or b"").splitlines(), place)
        tasks = sorted(unknown - self._lines.keys())
        places = [self._place(task) for task in tasks]
        for place, content in zip(places, find_ahead(places), strict=True):
            if content is None:
                raise gone(place)
            self._not_gathered += self._know([content], place)

    def note(self, commit: CommitRecord) -> None:
        """Knows a commit from now on, and gathers what was noted when it is enough for an object."""
        if commit.task in self._lines:
            return
        line = commit_line(commit)
        self._lines[commit.task] = line
        self._not_gathered.append(line)
        if len(self._not_gathered) >= GATHERED_AT_ONCE:
            (self._root / GATHERED / uuid.uuid4().hex).put(b"\n".join(self._not_gathered))
            self._not_gathered = []

    def _know(self, texts: Iterable[bytes], place: Location) -> list[bytes]:
        lines = []
        for text in texts:
            try:
                commit = commit_record(json.loads(text), place)
            except ValueError as error:
                raise damaged(place) from error
            self._lines[commit.task] = commit_line(commit)
            lines.append(self._lines[commit.task])
        return lines

    def _place(self, task: str) -> Location:
        return self._root / COMMITS / f"{task}.json"
