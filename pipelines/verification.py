"""Checks everything that a run has stored against its digests, for `dhpf verify`, and has the next run repair it.

A run's folder holds outputs (folders with a plan), and of a training its checkpoints; its journal lies beside it. Of a
complete output the manifest says which files belong to it, of one that was begun the commits do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dhpf.errors import InputError
from dhpf.manifest import (
    MANIFEST,
    REPAIR,
    CommitRecord,
    Damaged,
    commit_record,
    read_file,
    read_json,
    read_manifest,
    record_of,
    sealed_json,
)
from dhpf.pipelines.inputs.image_stamps import IMAGES
from dhpf.pipelines.outputs.commits import GATHERED, Commits
from dhpf.pipelines.outputs.store import DATA, PLAN, PLAN_REMEDY
from dhpf.pipelines.tracking.journal import Journal, journal_place
from dhpf.pipelines.training.checkpoints import RAY_RUN
from dhpf.pipelines.training.state import PROGRESS, require_whole
from dhpf.storage import Location, parent_of
from dhpf.storage.location import Entry
from dhpf.storage.read_ahead import read_ahead

_QUARANTINE = "quarantine"

_DELETE = "delete it: a run does without it"

_COMPARED = "the next run compares all images by their content instead; there is nothing to do"


@dataclass(frozen=True)
class Check:
    """A file to check.

    Attributes:
        key: its path below the part's folder, or its URI.
        task: whose file it is; "" for what belongs to no task.
        size: in bytes.
        read: reads it, and raises Damaged.
        remedy: for the case that it is damaged.
    """

    key: str
    task: str
    size: int
    read: Callable[[], object]
    remedy: str = REPAIR


@dataclass(frozen=True)
class Damage:
    """A file that is not as it was written.

    Attributes:
        key, task, remedy: as in Check.
        what: is wrong with it.
        is_missing: whether it is gone.
    """

    key: str
    task: str
    what: str
    remedy: str
    is_missing: bool


@dataclass
class Part:
    """A part of a run: an output, the checkpoints of a training, or the journal; and what its check has found.

    Attributes:
        name: its path below the folder that is checked.
        root: where it lies.
        checks: its files.
        state: "complete", "begun", or "" for what is no output.
        manifest_commits: of a complete output.
        unreferenced: keys of data of a complete output that its manifest does not name: what killed workers left.
    """

    name: str
    root: Location
    checks: list[Check]
    state: str = ""
    manifest_commits: Sequence[CommitRecord] = ()
    unreferenced: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    damage: list[Damage] = field(default_factory=list)

    @property
    def num_missing(self) -> int:
        return sum(damage.is_missing for damage in self.damage)

    def verify(self, on_read: Callable[[int], object]) -> None:
        """Reads all files; `on_read` is called with the size of each."""
        for check, error in read_ahead(_damage_of, self.checks):
            self.files += 1
            self.bytes += check.size
            if error is not None:
                what = error.partition(";")[0].rpartition(": ")[2]
                self.damage.append(Damage(check.key, check.task, what, check.remedy, what.startswith("gone")))
            on_read(check.size)

    def repair(self) -> list[str]:
        """Has the next run do again what is damaged; no run may be under way. Gives the tasks that it will do.

        A record that can be made from others is put back.
        """
        commits, tasks = Commits(self.root), dict[str, str]()
        numbers = commits.numbers()
        records = {
            commits.place(commit.task, number): commit
            for commit in self.manifest_commits
            if (number := numbers.get(commit.task))
        }
        for damage in self.damage:
            place = self.root / damage.key
            if place in records:
                place.put(sealed_json(vars(records[place])))
            elif damage.task:
                tasks[damage.task] = damage.what
            elif damage.key.startswith((f"{GATHERED}/", f"{_QUARANTINE}/")):
                place.delete()
        commits.mark_damaged(tasks)
        if tasks or any(damage.key == MANIFEST for damage in self.damage):
            (self.root / MANIFEST).delete()
        return sorted(tasks)


def parts_of(folder: Location) -> list[Part]:
    """The parts of a run, of a stage, or of what lies below any other folder of a run.

    Raises:
        InputError: there is none.
    """
    entries = list(folder.entries(hidden=True))
    names = sorted(
        {entry.key.removesuffix(PLAN).rstrip("/") for entry in entries if f"/{entry.key}".endswith(f"/{PLAN}")}
    )
    if not names:
        raise InputError(f"{folder}: holds no output of a stage; give the folder of a run, such as dhpf-work/NAME")
    parts = []
    for name in names:
        root = folder / name if name else folder
        below = _below(entries, name)
        parts.append(_output(name or folder.name, root, below))
        checkpoints = list(_checkpoints(root, below))
        if checkpoints:
            parts.append(Part(f"{name}/{RAY_RUN}".strip("/"), root, checkpoints))
    return [*parts, *_journal(folder)]


def _below(entries: Sequence[Entry], name: str) -> dict[str, int]:
    prefix = f"{name}/" if name else ""
    return {entry.key.removeprefix(prefix): entry.size for entry in entries if entry.key.startswith(prefix)}


def _output(name: str, root: Location, sizes: dict[str, int]) -> Part:
    """An output.

    Args:
        sizes: of all files below it, by key.
    """
    part = Part(name, root, [], "complete" if MANIFEST in sizes else "begun")
    commits = Commits(root)
    places = {task: commits.place(task, number) for task, number in commits.numbers().items()}
    counting = {str(place): task for task, place in places.items()}
    for key, size in sizes.items():
        folder, place = key.partition("/")[0], root / key
        if key == PLAN:
            part.checks.append(Check(key, "", size, partial(read_json, place), PLAN_REMEDY))
        elif key == MANIFEST:
            part.checks.append(Check(key, "", size, partial(read_manifest, root)))
        elif str(place) in counting:
            part.checks.append(Check(key, counting[str(place)], size, partial(read_json, place)))
        elif folder == _QUARANTINE:
            part.checks.append(Check(key, "", size, partial(read_json, place)))
        elif folder == GATHERED:
            part.checks.append(Check(key, "", size, partial(_read_lines, place)))
        elif folder == IMAGES and key.endswith(".json"):
            part.checks.extend(_noted_stamps(key, place, part.root, sizes))
    found = _commits(part, places.values())
    named = {str(entry["key"]) for commit in found for entry in commit.files.values()}
    for commit in found:
        for file, entry in commit.files.items():
            size = int(entry["size"])
            part.checks.append(Check(str(entry["key"]), commit.task, size, partial(read_file, root, commit, file)))
    if part.state == "complete":
        part.unreferenced = sorted(key for key in sizes if key.startswith(f"{DATA}/") and key not in named)
    return part


def _noted_stamps(key: str, place: Location, root: Location, sizes: dict[str, int]) -> Iterator[Check]:
    yield Check(key, "", sizes[key], partial(read_json, place), _COMPARED)
    with contextlib.suppress(Damaged):  # its own check says so
        record = commit_record(read_json(place), place)
        for name, entry in record.files.items():
            size = int(entry["size"])
            yield Check(str(entry["key"]), "", size, partial(read_file, root, record, name), _COMPARED)


def _commits(part: Part, places: Iterable[Location]) -> Sequence[CommitRecord]:
    """The commits of an output, as far as they can be read.

    Args:
        places: of those that count.
    """
    try:
        manifest = read_manifest(part.root)
    except Damaged:  # its own check says so
        manifest = None
    if manifest is not None:
        part.manifest_commits = manifest.commits
        return manifest.commits
    found = []
    for place in places:
        try:
            found.append(CommitRecord(**read_json(place)))
        except (Damaged, TypeError):  # as above
            continue
    return found


def _checkpoints(stage: Location, sizes: dict[str, int]) -> Iterator[Check]:
    for key in sizes:
        folder, _, name = key.rpartition("/")
        if folder.startswith(f"{RAY_RUN}/") and name == PROGRESS:
            size = sum(other for file, other in sizes.items() if file.startswith(f"{folder}/"))
            remedy = "an earlier checkpoint is taken in its place; there is nothing to do"
            yield Check(folder, "", size, partial(require_whole, stage / folder), remedy)


def _journal(folder: Location) -> list[Part]:
    """The journal of a run's folder, if this is one and it has one."""
    place = journal_place(parent_of(folder), folder)
    check = Journal(place).check
    checks = [Check(entry.key, "", entry.size, partial(check, entry.key), _DELETE) for entry in place.entries()]
    return [Part("journal", place, checks)] if checks else []


def _damage_of(check: Check) -> tuple[Check, str | None]:
    try:
        check.read()
    except Damaged as error:
        return check, str(error)
    return check, None


def _read_lines(place: Location) -> None:
    for line in (place.find() or b"").splitlines():
        record_of(line, place)


def facts_of(part: Part) -> dict[str, Any]:
    """What was found in a part, as plain values."""
    return {
        "name": part.name,
        "folder": str(part.root),
        "state": part.state,
        "files": part.files,
        "bytes": part.bytes,
        "damaged": len(part.damage) - part.num_missing,
        "missing": part.num_missing,
        "unreferenced": len(part.unreferenced),
        "damage": [vars(damage) for damage in part.damage],
    }
