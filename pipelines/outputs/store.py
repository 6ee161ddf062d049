"""The output of a stage: of each task exactly one result counts, however often it runs, and only a whole one.

PLAN.json says what a stage will do; a task writes its files under a key that nobody else uses and commits by creating
commits/<task>.json, which only the first can; MANIFEST.json comes last and means "complete". The output lies in a
folder or below an s3:// URI. Large files may lie elsewhere: then their keys are URIs, noted in objects-put/ before
anything is put there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dhpf.errors import InputError
from dhpf.manifest import (
    MANIFEST,
    CommitRecord,
    Manifest,
    canonical_json,
    check_size,
    commit_record,
    file_location,
    find_json,
    read_file,
    read_json,
    read_manifest,
)
from dhpf.storage import Location, is_uri, location_of

PLAN, COMMITS, DATA = "PLAN.json", "commits", "data"
BEGUN, SCRATCH, OBJECTS = "begun", "scratch", "objects-put"

REJECTS_TASK = "rejects"
"""The task, if a stage has one, that keeps the rows of its input that cannot be used; its table has the same name."""


class PlanConflict(InputError):
    """The folder holds an output of the same stage with another configuration or other inputs."""


class StageOutput:
    """One stage output.

    Args:
        root: folder or s3:// URI of the output.
    """

    def __init__(self, root: Location | Path | str) -> None:
        self.root = location_of(root)

    def plan(self, plan: Mapping[str, Any]) -> None:
        """Puts the plan, or checks that the one that is there is the same.

        Args:
            plan: JSON values; "stage" is the stage's name, "tasks" the list of task names.

        Raises:
            PlanConflict: another plan is there; the message names the fields that differ.
        """
        if not (self.root / PLAN).put_if_absent(canonical_json(plan)):
            self._require_same(read_json(self.root / PLAN), plan)

    def require_settings(self, settings: Mapping[str, Any]) -> None:
        """Checks that the plan, if there is one, agrees with these fields of the wanted plan; writes nothing.

        Raises:
            PlanConflict: a field differs.
        """
        found = find_json(self.root / PLAN)
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
        """The value of a field of the plan, or None if there is no such field or no plan yet."""
        plan = find_json(self.root / PLAN)
        return None if plan is None else plan.get(name)

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
        record = {"task": task, "files": entries, "info": dict(info)}
        place = self._commit_place(task)
        if place.put_if_absent(canonical_json(record)):
            return commit_record(record, place)
        return commit_record(read_json(place), place)

    def begin(self, task: str, run: str) -> int:
        """Notes that a run begins a task, and says how often it has, this time included.

        This is the only trace that a task leaves which kills its process.
        """
        attempt = 1
        while not (self.root / BEGUN / run / f"{task}.{attempt}").put_if_absent(uuid.uuid4().bytes):
            attempt += 1
        return attempt

    def commit_of(self, task: str) -> CommitRecord | None:
        """The record of a task's result, or None while the task is not done."""
        place = self._commit_place(task)
        record = find_json(place)
        return None if record is None else commit_record(record, place)

    def committed(self) -> dict[str, CommitRecord]:
        """The tasks that are done, by name."""
        places = [self._commit_place(task) for task in self._done()]
        return {place.name.removesuffix(".json"): commit_record(read_json(place), place) for place in places}

    def missing(self) -> list[str]:
        """The planned tasks that are not done, in the plan's order."""
        done = set(self._done())
        return [task for task in self._planned() if task not in done]

    def _commit_place(self, task: str) -> Location:
        return self.root / COMMITS / f"{task}.json"

    def _done(self) -> list[str]:
        return [entry.key.removesuffix(".json") for entry in (self.root / COMMITS).entries()]

    @property
    def scratch(self) -> Location:
        """Folder for what is needed only until the output is complete."""
        return self.root / SCRATCH

    def finish(self, record: Mapping[str, Any]) -> Manifest:
        """Puts the manifest, after which the output is complete, and removes what is not part of it.

        Raises:
            InputError: a committed file is gone or has another size.
        """
        missing = self.missing()
        if missing:
            raise RuntimeError(f"{self.root}: {len(missing)} tasks are not done, the first is {missing[0]}")
        commits = self.committed()
        for task in self._planned():
            for name in commits[task].files:
                check_size(self.root, commits[task], name)
        content = {
            "record": record,
            "commits": [{"task": t, "files": commits[t].files, "info": commits[t].info} for t in self._planned()],
        }
        (self.root / MANIFEST).put_if_absent(canonical_json(content))
        manifest = self.manifest()
        assert manifest is not None
        self._remove_unreferenced(manifest)
        return manifest

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
        tasks: list[str] = read_json(self.root / PLAN)["tasks"]
        return tasks

    def _remove_unreferenced(self, manifest: Manifest) -> None:
        keys = {str(entry["key"]) for commit in manifest.commits for entry in commit.files.values()}
        for note in _notes(self.root / OBJECTS):
            if note.read().decode() not in keys:
                with contextlib.suppress(InputError):  # the store cannot be reached: the note stays, for --restart
                    _remove_noted(note)
        kept = {_folder_of(key.removeprefix(f"{DATA}/")) for key in keys if not is_uri(key)}
        for folder in {_folder_of(entry.key) for entry in (self.root / DATA).entries(hidden=True)} - kept:
            (self.root / DATA / folder).delete_all()
        for name in (BEGUN, SCRATCH):
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


def _folder_of(key: str) -> str:
    return key.rpartition("/")[0]


def _remove_noted(note: Location) -> None:
    location_of(note.read().decode()).delete()
    note.delete()


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
