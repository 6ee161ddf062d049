"""The folder of a stage output: of each task exactly one result counts, however often it runs, and only a whole one.

PLAN.json says what a stage will do; a task writes its files under a key that nobody else uses and commits by creating
commits/<task>.json, which only the first can; MANIFEST.json comes last and means "complete". Large files may lie in an
object store: then their keys are URIs, noted in objects-put/ before anything is put there.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
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
    checked_path,
    commit_record,
    read_json,
    read_manifest,
)
from dhpf.object_store import is_uri, object_uri, put_object, remove_object

PLAN, COMMITS, DATA = "PLAN.json", "commits", "data"
BEGUN, SCRATCH, OBJECTS = "begun", "scratch", "objects-put"

REJECTS_TASK = "rejects"
"""The task, if a stage has one, that keeps the rows of its input that cannot be used; its table has the same name."""

_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of file systems without hard links, such as FAT and many object stores that are mounted as folders."""


class PlanConflict(InputError):
    """The folder holds an output of the same stage with another configuration or other inputs."""


class StageOutput:
    """The folder of one stage output."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def plan(self, plan: Mapping[str, Any]) -> None:
        """Puts the plan, or checks that the one that is there is the same.

        Args:
            plan: JSON values; "stage" is the stage's name, "tasks" the list of task names.

        Raises:
            PlanConflict: another plan is there; the message names the fields that differ.
        """
        if not put_if_absent(self.root / PLAN, canonical_json(plan)):
            self._require_same(read_json(self.root / PLAN), plan)

    def require_settings(self, settings: Mapping[str, Any]) -> None:
        """Checks that the plan, if there is one, agrees with these fields of the wanted plan; writes nothing.

        Raises:
            PlanConflict: a field differs.
        """
        if self.has_plan():
            found = read_json(self.root / PLAN)
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
        return read_json(self.root / PLAN).get(name) if self.has_plan() else None

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
                key = object_uri(in_store[name], f"{task}/{run}/{name}")
                write_durably(self.root / OBJECTS / f"{run}-{name}", key.encode())
                put_object(key, content)
            else:
                key = f"{DATA}/{task}/{run}/{name}"
                write_durably(self.root / key, content)
            entries[name] = {"key": key, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        record = {"task": task, "files": entries, "info": dict(info)}
        path = self.root / COMMITS / f"{task}.json"
        put_if_absent(path, canonical_json(record))
        return _read_commit(path)

    def begin(self, task: str, run: str) -> int:
        """Notes that a run begins a task, and says how often it has, this time included.

        This is the only trace that a task leaves which kills its process.
        """
        attempt = 1
        while not put_if_absent(self.root / BEGUN / run / f"{task}.{attempt}", b""):
            attempt += 1
        return attempt

    def commit_of(self, task: str) -> CommitRecord | None:
        """The record of a task's result, or None while the task is not done."""
        path = self.root / COMMITS / f"{task}.json"
        return _read_commit(path) if path.exists() else None

    def committed(self) -> dict[str, CommitRecord]:
        """The tasks that are done, by name."""
        folder = self.root / COMMITS
        records = [_read_commit(path) for path in sorted(folder.glob("*.json"))] if folder.is_dir() else []
        return {record.task: record for record in records}

    def missing(self) -> list[str]:
        """The planned tasks that are not done, in the plan's order."""
        done = {path.stem for path in (self.root / COMMITS).glob("*.json")}
        return [task for task in self._planned() if task not in done]

    @property
    def scratch(self) -> Path:
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
            for entry in commits[task].files.values():
                check_size(self.root, entry)
        content = {
            "record": record,
            "commits": [{"task": t, "files": commits[t].files, "info": commits[t].info} for t in self._planned()],
        }
        put_if_absent(self.root / MANIFEST, canonical_json(content))
        manifest = self.manifest()
        assert manifest is not None
        self._remove_unreferenced(manifest)
        return manifest

    def manifest(self) -> Manifest | None:
        """The manifest, or None while the output is not complete."""
        return read_manifest(self.root)

    def path(self, commit: CommitRecord, name: str, *, check_digest: bool = True) -> Path:
        """The path of a committed file, once its size and its digest are checked.

        Args:
            check_digest: reads the whole file; False for large files that hold digests of their own.

        Raises:
            InputError: the file is not as it was committed.
        """
        return checked_path(self.root, commit, name, check_digest=check_digest)

    def location(self, commit: CommitRecord, name: str) -> str:
        """The path of a large committed file, once its size is checked, or its URI in an object store.

        Raises:
            InputError: the file is not as it was committed.
        """
        key = str(commit.files[name]["key"])
        return key if is_uri(key) else str(self.path(commit, name, check_digest=False))

    def read(self, commit: CommitRecord, name: str) -> bytes:
        """The bytes of a committed file, once their size and their digest are checked.

        Raises:
            InputError: the file is not as it was committed.
        """
        return self.path(commit, name).read_bytes()

    def _planned(self) -> list[str]:
        tasks: list[str] = read_json(self.root / PLAN)["tasks"]
        return tasks

    def _remove_unreferenced(self, manifest: Manifest) -> None:
        keys = {entry["key"] for commit in manifest.commits for entry in commit.files.values()}
        kept = {str(Path(key).parent) for key in keys if not is_uri(key)}
        for note in self.root.glob(f"{OBJECTS}/*"):
            if note.read_text() not in keys:
                with contextlib.suppress(InputError):  # the store cannot be reached: the note stays, for --restart
                    _remove_noted(note)
        for folder in (self.root / DATA).glob("*/*"):
            if str(folder.relative_to(self.root)) not in kept:
                shutil.rmtree(folder, ignore_errors=True)
        for name in (BEGUN, SCRATCH):
            shutil.rmtree(self.root / name, ignore_errors=True)


def remove_objects(folder: Path) -> None:
    """Removes from object stores all that the stage outputs in this folder have put there.

    Raises:
        InputError: a store does not remove it.
    """
    for note in folder.glob(f"**/{OBJECTS}/*"):
        if note.is_file():
            _remove_noted(note)


def _remove_noted(note: Path) -> None:
    remove_object(note.read_text())
    note.unlink()


def write_durably(path: Path, content: bytes) -> None:
    """Writes a file whole: under a temporary name, to the disk, then under its own name."""
    temporary = _write_temporary(path, content)
    temporary.replace(path)
    _sync_folder(path.parent)


def put_if_absent(path: Path, content: bytes) -> bool:
    """Creates a file whole, unless it exists; True for the one caller that created it.

    Raises:
        InputError: the file system cannot create a file for one caller only.
    """
    temporary = _write_temporary(path, content)
    try:
        os.link(temporary, path)  # unlike a rename, a link never overwrites
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        raise InputError(
            f"folder {path.parent}: its file system has no hard links, by which one of several writers is chosen; "
            "use a --work folder on a local or NFS disk"
        ) from error
    finally:
        temporary.unlink()
    _sync_folder(path.parent)
    return True


def _write_temporary(path: Path, content: bytes) -> Path:
    _make_folder_durably(path.parent)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:  # after a full disk or an interrupt no partial file stays behind
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _make_folder_durably(folder: Path) -> None:
    """A new folder outlasts a power failure only once its own name is on the disk."""
    if folder.is_dir():
        return
    _make_folder_durably(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    with contextlib.suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)


def _read_commit(path: Path) -> CommitRecord:
    return commit_record(read_json(path), path)


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
