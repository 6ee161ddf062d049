"""The output of a stage: of each task exactly one result counts, however often it runs, and only a whole one.

PLAN.json says what a stage will do; a task writes its files under a key that nobody else uses and commits by creating
commits/<task>.json, which only the first can; MANIFEST.json comes last and means "complete". The output lies in a
folder or below an s3:// URI.

Digests are checked by whoever reads a file, by `dhpf verify`, and, of all that earlier drivers have committed, by a
driver that goes on; what is damaged there is done again. The driver that finishes an output checks sizes only: what was
written just now, on other machines perhaps, would all have to be read. Nor does a driver that goes on read whole what
has digests of its parts (WITH_OWN_DIGESTS), because shards hold all images.
 Large files may lie elsewhere: then their keys are URIs, noted in objects-put/ before
anything is put there. What gathered/ holds only spares the next driver time (pipelines/outputs/commits.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from dhpf.errors import InputError
from dhpf.manifest import (
    MANIFEST,
    CommitRecord,
    Damaged,
    Manifest,
    canonical_json,
    file_location,
    find_json,
    read_file,
    read_json,
    read_manifest,
    record_of,
    require_size,
    sealed_json,
)
from dhpf.pipelines.outputs.commits import GATHERED, Commits
from dhpf.planning.blocks import block_name
from dhpf.storage import Location, is_uri, location_of
from dhpf.storage.read_ahead import find_ahead, read_ahead
from dhpf.storage.seal import is_left_of

PLAN_REMEDY = "the command of the run makes it again if its settings and inputs are those of before"
"""For a damaged plan, which says with which settings the output was begun."""

PLAN, DATA, SCRATCH, OBJECTS = "PLAN.json", "data", "scratch", "objects-put"

PASSING = (GATHERED, SCRATCH, "begun")
"""Folders of an output that go once it is complete; the last is of versions that noted there what they had begun."""

WITH_OWN_DIGESTS = ".tar"
"""Ends the names of files whose parts have digests in a file beside them, and are checked when they are read."""

REJECTS_TASK = "rejects"
"""The task, if a stage has one, that keeps the rows of its input that cannot be used; its table has the same name."""


_log = logging.getLogger(__name__)


class PlanConflict(InputError):
    """The folder holds an output of the same stage with another configuration or other inputs."""


class StageOutput:
    """One stage output.

    It remembers the commits that it has read or was told of: they never change.

    Args:
        root: folder or s3:// URI of the output.
    """

    def __init__(self, root: Location | Path | str) -> None:
        self.root = location_of(root)
        self._commits = Commits(self.root)

    def plan(self, plan: Mapping[str, Any]) -> None:
        """Puts the plan, or checks that the one that is there is the same.

        A damaged one is put again if what is left of it shows that it was the same.

        Args:
            plan: JSON values; "stage" is the stage's name, "tasks" the list of task names, which is stored as a number
                where they are those of blocks.

        Raises:
            PlanConflict: another plan is there; the message names the fields that differ.
            Damaged: the plan that is there is damaged, and does not show that it was this one.
        """
        place, content = self.root / PLAN, sealed_json(_closed(plan))
        if place.put_if_absent(content):
            return
        found = place.read()
        try:
            stored = record_of(found, place)
        except Damaged as error:
            if not is_left_of(found, content):
                raise Damaged(
                    f"{place}: damaged since it was written, and not known to be of these settings and inputs; give "
                    f"those of before, or use another --name, or --restart {plan['stage']} to delete the output and "
                    "run again; nothing else was changed, and results of a complete output can still be read"
                ) from error
            _log.warning("%s: damaged since it was written; it was the same, and is put again", place)
            place.put(content)
            return
        self._require_same(_closed(stored), _closed(plan))

    def require_settings(self, settings: Mapping[str, Any]) -> None:
        """Checks that the plan, if there is a whole one, agrees with these fields of the wanted plan; writes nothing.

        Raises:
            PlanConflict: a field differs.
        """
        found = self._whole_plan()
        if found is not None:
            self._require_same({name: found.get(name) for name in settings}, settings)

    def _require_same(self, found: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
        wanted = json.loads(canonical_json(plan))
        changes = _differences(found, wanted)
        if changes:
            raise PlanConflict(
                f"{self.root} holds an earlier {wanted['stage']} with other settings ({'; '.join(changes[:4])}); "
                f"use another --name or --work folder, or --restart {wanted['stage']} to delete it and run again"
            )

    def has_plan(self) -> bool:
        """Whether work on this output has begun."""
        return (self.root / PLAN).exists()

    def planned(self, name: str) -> Any:
        """The value of a field of the plan, or None if there is no such field or no whole plan yet."""
        plan = self._whole_plan()
        return None if plan is None else plan.get(name)

    def _whole_plan(self) -> Any:
        """The plan; None where there is none, or a damaged one, of which `plan` knows what to do."""
        try:
            return find_json(self.root / PLAN)
        except Damaged:
            return None

    def commit(
        self,
        task: str,
        files: Mapping[str, bytes],
        info: Mapping[str, Any],
        in_store: Mapping[str, str] = MappingProxyType({}),
    ) -> CommitRecord:
        """Writes a task's files and makes them the task's result, unless another run of it was first.

        Args:
            in_store: names of files that go to an object store, each with the URI below which it is put.

        Returns:
            the record that counts: this run's, or the winner's.
        """
        run = uuid.uuid4().hex
        entries = {}
        for name, content in files.items():
            if name in in_store:
                place = location_of(in_store[name]) / f"{task}/{run}/{name}"
                key = str(place)
                (self.root / OBJECTS / f"{run}-{name}").put(key.encode())
            else:
                key = f"{DATA}/{task}/{run}/{name}"
                place = self.root / key
            place.put(content)
            entries[name] = {"key": key, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        return self._commits.put(CommitRecord(task, entries, dict(info)))

    def note(self, commit: CommitRecord) -> None:
        """Remembers a commit, so that it need not be read; to be called by the one process that drives the stage."""
        self._commits.note(commit)

    def commit_of(self, task: str) -> CommitRecord | None:
        """The record of a task's result, or None while the task is not done."""
        return self._commits.find(task)

    def committed(self) -> Mapping[str, CommitRecord]:
        """The tasks that are done, by name; read from the store only where a planned task is not known to be done.

        Where a file is damaged that another driver has committed, its task is not done any more.
        """
        if any(task not in self._commits for task in self._planned()):
            learned = self._commits.learn()
            if not (self.root / MANIFEST).exists():
                self._mark_damaged(learned)
        return self._commits

    def _mark_damaged(self, tasks: Sequence[str]) -> None:
        """Reads the files that these tasks have committed, and marks those tasks of which one is damaged."""
        files = self._checked(self._commits[task] for task in tasks)
        self._commits.mark_damaged(
            {task: str(error) for task, error in read_ahead(self._damage, files) if error is not None}
        )

    def _checked(self, commits: Iterable[CommitRecord]) -> Iterator[tuple[CommitRecord, str]]:
        """The files of these commits that are read to see whether they are damaged."""
        return ((c, name) for c in commits for name in c.files if not name.endswith(WITH_OWN_DIGESTS))

    def _damage(self, file: tuple[CommitRecord, str]) -> tuple[str, Damaged | None]:
        commit, name = file
        try:
            self.read(commit, name)
        except Damaged as error:
            return commit.task, error
        return commit.task, None

    def mark_for_retry(self, reasons: Mapping[str, str]) -> None:
        """Has tasks that are done do again what they could not do; the output has to be reopened then.

        No other driver may be at work on it, see pipelines/outputs/lease.py.

        Args:
            reasons: why, by task.
        """
        manifest = self.manifest()
        if manifest is not None:
            self._commits.know(manifest.commits)
        self._commits.mark_for_retry(reasons)

    def reopen(self) -> None:
        """Has a complete output finished again, when the tasks that were marked are done."""
        (self.root / MANIFEST).delete()

    def retried(self, task: str) -> CommitRecord | None:
        """What a task had given that is to be done again for the sake of what it could not do; its files are there."""
        return self._commits.retried(task)

    def to_retry(self) -> Iterator[CommitRecord]:
        """What tasks had given that are still to be done again, see `retried`; as far as it is not damaged."""
        for task in self._commits.marked_for_retry():
            commit = self.retried(task)
            if commit and not any(damage for _, damage in map(self._damage, self._checked([commit]))):
                yield commit

    def missing(self) -> list[str]:
        """The planned tasks that are not done, in the plan's order."""
        planned = self._planned()
        if all(task in self._commits for task in planned):
            return []
        done = self._commits.done()
        return [task for task in planned if task not in done]

    @property
    def scratch(self) -> Location:
        """Folder for what is needed only until the output is complete."""
        return self.root / SCRATCH

    def finish(self, record: Mapping[str, Any]) -> Manifest:
        """Puts the manifest, after which the output is complete, and removes what is not part of it.

        Raises:
            Damaged: a committed file is gone or has another size; its task will be done again.
        """
        planned, commits = self._planned(), self.committed()
        missing = [task for task in planned if task not in commits]
        if missing and self._commits.marked.isdisjoint(missing):
            raise RuntimeError(f"{self.root}: {len(missing)} tasks are not done, the first is {missing[0]}")
        unreferenced = self._unreferenced(commits)
        if self._commits.marked:
            raise Damaged(
                f"{self.root}: files of {len(self._commits.marked)} tasks were damaged before the output was complete, "
                f"the first of {min(self._commits.marked)}; the same command does only these tasks again"
            )
        lines = self._commits.in_order(planned)
        if (self.root / MANIFEST).put_if_absent(lines.manifest_bytes(record)):
            manifest: Manifest | None = Manifest(json.loads(canonical_json(record)), lines)
        else:  # another driver was faster
            manifest = self.manifest()
        assert manifest is not None
        self._remove(unreferenced, manifest)
        return manifest

    def _unreferenced(self, commits: Mapping[str, CommitRecord]) -> set[str]:
        """Checks by one listing that all committed files are there with their sizes; gives the keys of all others.

        Tasks with files that are not are marked.
        """
        sizes = {f"{DATA}/{entry.key}": entry.size for entry in (self.root / DATA).entries(hidden=True)}
        damaged: dict[str, str] = {}
        for task, commit in commits.items():
            for name, entry in commit.files.items():
                if is_uri(entry["key"]) or sizes.pop(entry["key"], None) != entry["size"]:
                    place = self.location(commit, name)
                    try:
                        require_size(place, place.size(), entry)
                    except Damaged as error:
                        damaged[task] = str(error)
        self._commits.mark_damaged(damaged)
        return set(sizes)

    def manifest(self) -> Manifest | None:
        """The manifest, or None while the output is not complete."""
        return read_manifest(self.root)

    def location(self, commit: CommitRecord, name: str) -> Location:
        """Where a committed file lies, whose size and digest are not checked: for files with digests of their own."""
        return file_location(self.root, commit, name)

    def read(self, commit: CommitRecord, name: str) -> bytes:
        """The bytes of a committed file, once their size and their digest are checked.

        Raises:
            InputError: the file is not as it was committed.
        """
        return read_file(self.root, commit, name)

    def _planned(self) -> list[str]:
        return _task_names(read_json(self.root / PLAN, PLAN_REMEDY)["tasks"])

    def _remove(self, unreferenced: set[str], manifest: Manifest) -> None:
        """Removes files that no commit names, here and in other stores, and what was needed only on the way."""
        notes = _notes(self.root / OBJECTS)
        if notes:
            keys = {str(entry["key"]) for commit in manifest.commits for entry in commit.files.values()}
            for note, key in zip(notes, find_ahead(notes), strict=True):
                if key is not None and key.decode() not in keys:
                    with contextlib.suppress(InputError):  # the store cannot be reached: the note stays, for --restart
                        _remove_noted(note)
        if unreferenced:
            kept = _folders_of(manifest)
            for folder in {key.rpartition("/")[0] for key in unreferenced} - kept:
                (self.root / folder).delete_all()
        for name in PASSING:
            (self.root / name).delete_all()


def remove_outputs(place: Location) -> None:
    """Removes all stage outputs at a location, and from other stores what they have put there.

    Raises:
        InputError: a store does not remove it.
    """
    for note in _notes(place):
        _remove_noted(note)
    place.delete_all()


def _notes(place: Location) -> list[Location]:
    """Notes of what was put into other stores, at any depth."""
    keys = (entry.key for entry in place.entries())
    return [place / key for key in keys if OBJECTS in f"{place.name}/{key}".split("/")[:-1]]


def _folders_of(manifest: Manifest) -> set[str]:
    """The folders that hold committed files or such folders, as keys."""
    keys = {str(entry["key"]) for commit in manifest.commits for entry in commit.files.values()}
    return {str(folder) for key in keys if not is_uri(key) for folder in PurePosixPath(key).parents}


def _remove_noted(note: Location) -> None:
    location_of(note.read().decode()).delete()
    note.delete()


def _closed(plan: Any) -> Any:
    """A plan as it is stored: its tasks as how many blocks and which others behind them; a list if they are not so."""
    names = plan.get("tasks") if isinstance(plan, Mapping) else None
    if not isinstance(names, Sequence):
        return plan
    blocks = next((n for n, task in enumerate(names) if task != block_name(n)), len(names))
    return {**plan, "tasks": {"blocks": blocks, "others": list(names[blocks:])} if blocks else list(names)}


def _task_names(tasks: Any) -> list[str]:
    """The names of the tasks of a stored plan; version 0.1 stored a list of them."""
    if isinstance(tasks, list):
        return tasks
    return [*map(block_name, range(tasks["blocks"])), *tasks["others"]]


def _differences(found: Any, wanted: Any, place: str = "") -> list[str]:
    """Dotted names of what differs, with both values."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = sorted(set(found) | set(wanted))
        return [d for key in keys for d in _differences(found.get(key), wanted.get(key), f"{place}.{key}".strip("."))]
    if found == wanted:
        return []
    return [f"{place}: {_short(found)} -> {_short(wanted)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
