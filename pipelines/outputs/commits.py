"""The commits of a stage output: which tasks are done, and what each gave.

A commit is an object of its own, because only so exactly one run of a task can create it: commits/TASK.json. It is
never changed or removed. Where what it names turns out to be damaged, a mark is put beside it, commits/TASK~1.damaged;
then the task is not done any more, and the next commit, TASK~2.json, is the one that counts. A mark TASK~1.retried
does the same where a task is to try again what it could not do; what its commit holds stays good, and is made use of.

For a driver that goes on where another stopped, commits are also gathered, many in one object; it reads those, and by
themselves only the commits that were not gathered yet.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from dhpf.manifest import (
    CommitLines,
    CommitRecord,
    Damaged,
    commit_line,
    commit_of_line,
    commit_record,
    read_json,
    record_of,
    sealed_json,
)
from dhpf.storage import Location
from dhpf.storage.location import gone
from dhpf.storage.read_ahead import find_ahead
from dhpf.storage.seal import sealed

COMMITS, GATHERED = "commits", "gathered"

Kind = Literal["json", "damaged", "retried"]

MARKS: tuple[Kind, ...] = ("damaged", "retried")
"""Endings of the marks by which a commit does not count any more."""

GATHERED_AT_ONCE = 1000
"""Commits that are gathered in one object."""

_KEY = re.compile(r"(?P<task>.+?)(~(?P<number>[0-9]+))?\.(?P<kind>json|damaged|retried)")

_log = logging.getLogger(__name__)


class Commits(Mapping[str, CommitRecord]):
    """The commits that this process knows of, by their tasks; each is read once.

    Args:
        root: of the output.

    Attributes:
        marked: the tasks whose commits this process has marked as damaged, and that were not done again yet.
    """

    def __init__(self, root: Location) -> None:
        self._root = root
        self._lines: dict[str, bytes] = {}
        self._not_gathered: list[bytes] = []
        self._retried: dict[str, int] = {}
        self.marked: set[str] = set()

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
        """Makes it the commit of its task, unless there is one that counts; returns the one that counts."""
        number = 1
        while not self.place(commit.task, number).put_if_absent(sealed_json(vars(commit))):
            found = self._read(commit.task, number)
            if found is not None:
                return found
            number += 1
        return commit

    def find(self, task: str) -> CommitRecord | None:
        """The commit of a task as the store has it, or None while the task is not done."""
        number = 1
        while self.place(task, number).exists():
            found = self._read(task, number)
            if found is not None:
                return found
            number += 1
        return None

    def done(self) -> set[str]:
        """The tasks that are done, as the store lists them."""
        return set(self.numbers())

    def mark_damaged(self, reasons: Mapping[str, str]) -> None:
        """Marks the commits of tasks as damaged: these tasks are not done any more, and will be done again.

        Args:
            reasons: why, by task.
        """
        numbers = self.numbers() if reasons else {}
        for task, why in reasons.items():
            if task in numbers:
                self._mark(task, numbers[task], why)

    def mark_for_retry(self, reasons: Mapping[str, str]) -> None:
        """Has tasks done again that are done; what they hold stays good.

        Args:
            reasons: why, by task.
        """
        numbers = self.numbers()
        for task, why in reasons.items():
            if task in numbers:
                self.place(task, numbers[task], "retried").put_if_absent(sealed_json({"task": task, "why": why}))
                self._retried[task] = numbers[task]
            self._lines.pop(task, None)

    def marked_for_retry(self) -> list[str]:
        """The tasks that are marked for a retry, and that were not done again yet."""
        return [task for task in self._retried if task not in self._lines]

    def retried(self, task: str) -> CommitRecord | None:
        """The commit that a task had before it was marked for a retry; None where it is not, or where it is damaged."""
        if task not in self._retried or task in self._lines:
            return None
        place = self.place(task, self._retried[task])
        try:
            return commit_record(read_json(place), place)
        except Damaged:
            return None

    def know(self, commits: Iterable[CommitRecord]) -> None:
        """Knows these commits from now on; they have been read elsewhere."""
        for commit in commits:
            self._know(commit)

    def learn(self) -> list[str]:
        """Reads the commits that are not known yet; those that are not as they were written are marked as damaged.

        Returns:
            the tasks whose commits it has read.
        """
        listed = self._listed()
        numbers = _counting(listed)
        self._retried = {
            task: number for task, number in listed["retried"].items() if number > listed["damaged"].get(task, 0)
        }
        unknown = numbers.keys() - self._lines.keys()
        first = {task for task in unknown if numbers[task] == 1}  # of others a gathered commit may be an earlier one
        if first:
            places = [self._root / GATHERED / entry.key for entry in (self._root / GATHERED).entries()]
            for place, content in zip(places, find_ahead(places), strict=True):
                self._know_gathered(content or b"", place, first)
        tasks = sorted(unknown - self._lines.keys())
        places = [self.place(task, numbers[task]) for task in tasks]
        for task, place, content in zip(tasks, places, find_ahead(places), strict=True):
            if content is None:
                raise gone(place)
            try:
                commit = commit_record(record_of(content, place), place)
            except Damaged as error:
                self._mark(task, numbers[task], str(error))
                continue
            self._not_gathered.append(self._know(commit))
        return sorted(unknown & self._lines.keys())

    def note(self, commit: CommitRecord) -> None:
        """Knows a commit from now on, and gathers what was noted when it is enough for an object."""
        if commit.task in self._lines:
            return
        self._not_gathered.append(self._know(commit))
        if len(self._not_gathered) >= GATHERED_AT_ONCE:
            (self._root / GATHERED / uuid.uuid4().hex).put(b"\n".join(map(sealed, self._not_gathered)))
            self._not_gathered = []

    def _know_gathered(self, content: bytes, place: Location, tasks: set[str]) -> None:
        """Takes what was gathered of these tasks; what is damaged there is read by itself."""
        for line in content.splitlines():
            try:
                commit = commit_record(record_of(line, place), place)
            except Damaged:
                _log.warning("%s: damaged since it was written; the commits are read one by one", place)
                continue
            if commit.task in tasks:
                self._know(commit)

    def _know(self, commit: CommitRecord) -> bytes:
        line = commit_line(commit)
        self._lines[commit.task] = line
        self.marked.discard(commit.task)
        return line

    def numbers(self) -> dict[str, int]:
        """Of each task that is done the number of the commit that counts, as the store lists them."""
        return _counting(self._listed())

    def _listed(self) -> dict[str, dict[str, int]]:
        """Of each kind of file, by its ending, the highest number of each task."""
        found: dict[str, dict[str, int]] = {"json": {}, "damaged": {}, "retried": {}}
        for entry in (self._root / COMMITS).entries():
            key = _KEY.fullmatch(entry.key)
            if key:
                highest = found[key["kind"]]
                highest[key["task"]] = max(highest.get(key["task"], 0), int(key["number"] or 1))
        return found

    def _read(self, task: str, number: int) -> CommitRecord | None:
        """A commit that is there; None, and marked, if it is damaged."""
        place = self.place(task, number)
        if any(self.place(task, number, mark).exists() for mark in MARKS):
            return None
        try:
            return commit_record(read_json(place), place)
        except Damaged as error:
            self._mark(task, number, str(error))
            return None

    def _mark(self, task: str, number: int, why: str) -> None:
        _log.warning("%s; what task %s did is done again", why.partition(";")[0], task)
        self.place(task, number, "damaged").put_if_absent(sealed_json({"task": task, "why": why}))
        self._lines.pop(task, None)
        self.marked.add(task)

    def place(self, task: str, number: int, kind: Kind = "json") -> Location:
        """Where the commit of a task with this number, counted from 1, lies, or a mark of it."""
        numbered = task if number == 1 and kind == "json" else f"{task}~{number}"
        return self._root / COMMITS / f"{numbered}.{kind}"


def _counting(listed: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Of each task that is done the number of the commit that counts: the latest, unless it is marked."""
    return {
        task: number
        for task, number in listed["json"].items()
        if all(number > listed[mark].get(task, 0) for mark in MARKS)
    }
