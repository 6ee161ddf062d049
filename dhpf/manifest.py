"""The manifest of a stage's output: which files belong to it, each with its size and digest.

It is written last, so its presence means that the output is complete. Readers follow it and never list a folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from dhpf.errors import InputError
from dhpf.storage import Location, is_uri, location_of
from dhpf.storage.location import gone
from dhpf.storage.seal import sealed, unsealed

MANIFEST = "MANIFEST.json"

REPAIR = (
    "`dhpf verify RUN --repair`, RUN being the folder of the run, and then the same command make only what is damaged "
    "again"
)
"""The remedy for damage in an output."""


class Damaged(InputError):
    """What a stage has written is gone, or not as it was written."""


@dataclass(frozen=True)
class CommitRecord:
    """What a task gave.

    Attributes:
        task: its name.
        files: name -> {"key", "size", "sha256"}; the key is a path below the output's folder, or a URI.
        info: counts and whatever else the task reports.
    """

    task: str
    files: Mapping[str, Mapping[str, Any]]
    info: Mapping[str, Any]


class CommitLines(Sequence[CommitRecord]):
    """Commits that are held as JSON, which takes a third of the memory; each is made when it is asked for.

    Args:
        lines: JSON of each commit, as `commit_line` makes it.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = list(lines)

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, place: int) -> CommitRecord: ...

    @overload
    def __getitem__(self, place: slice) -> CommitLines: ...

    def __getitem__(self, place: int | slice) -> CommitRecord | CommitLines:
        if isinstance(place, slice):
            return CommitLines(self._lines[place])
        return commit_of_line(self._lines[place])

    def manifest_bytes(self, record: Mapping[str, Any]) -> bytes:
        """The content of the manifest that holds these commits and a record, a line for each commit."""
        return sealed(b'{"commits": [\n%b\n], "record": %b}' % (b",\n".join(self._lines), canonical_json(record)))


def commit_line(commit: CommitRecord) -> bytes:
    """JSON of a commit without a line break; equal commits give equal bytes."""
    return json.dumps(vars(commit), sort_keys=True, allow_nan=False).encode()


def commit_of_line(line: bytes) -> CommitRecord:
    """The inverse of `commit_line`."""
    return CommitRecord(**json.loads(line))


@dataclass(frozen=True)
class Manifest:
    """A complete stage output: its record and the commit of every task, in the plan's order."""

    record: Mapping[str, Any]
    commits: Sequence[CommitRecord]

    def digest(self) -> str:
        """sha256 over what the tasks wrote: the same for the same content, wherever and whenever it was written."""
        content = [(c.task, name, f["sha256"]) for c in self.commits for name, f in sorted(c.files.items())]
        return hashlib.sha256(canonical_json(content)).hexdigest()


def read_manifest(root: Location) -> Manifest | None:
    """The manifest of the output at a location, or None while the output is not complete.

    Raises:
        Damaged: it is not as it was written.
    """
    place = root / MANIFEST
    content = find_json(place)
    if content is None:
        return None
    try:
        return Manifest(content["record"], tuple(commit_record(commit, place) for commit in content["commits"]))
    except (KeyError, TypeError) as error:
        raise damaged(place) from error


def file_location(root: Location, commit: CommitRecord, name: str) -> Location:
    """Where a committed file lies.

    Args:
        root: of the output.
    """
    key = str(commit.files[name]["key"])
    return location_of(key) if is_uri(key) else root / key


def read_file(root: Location, commit: CommitRecord, name: str) -> bytes:
    """The bytes of a committed file, once their size and their digest are checked.

    Raises:
        Damaged: the file is not as it was committed.
    """
    place, entry = file_location(root, commit, name), commit.files[name]
    content = place.find()
    require_size(place, None if content is None else len(content), entry)
    if hashlib.sha256(content or b"").hexdigest() != entry["sha256"]:
        raise damaged(place)
    return content or b""


def require_size(place: Location, size: int | None, entry: Mapping[str, Any]) -> None:
    """Checks the size of a committed file.

    Args:
        place: the file, as an error names it.
        size: what it has, in bytes; None where there is no file.
        entry: what its commit says of it.

    Raises:
        Damaged: it is not the size that it was committed with.
    """
    if size != entry["size"]:
        found = "gone" if size is None else f"{size} bytes instead of {entry['size']}"
        raise Damaged(f"{place}: {found}; {REPAIR}")


def commit_record(content: Any, place: Location) -> CommitRecord:
    """A commit from JSON values that were read from `place`."""
    try:
        return CommitRecord(**content)
    except TypeError as error:
        raise damaged(place) from error


def find_json(place: Location, remedy: str = REPAIR) -> Any:
    """The JSON values in a file of an output, without its seal; None where there is no file.

    Args:
        remedy: what to do where it is damaged.

    Raises:
        Damaged: it is not as it was written.
    """
    content = place.find()
    return None if content is None else record_of(content, place, remedy)


def record_of(content: bytes, place: Location, remedy: str = REPAIR) -> Any:
    """The JSON values, without their seal, that were read from `place`.

    Raises:
        Damaged: they are not as they were written.
    """
    try:
        return json.loads(unsealed(content))
    except ValueError as error:
        raise damaged(place, remedy) from error


def read_json(place: Location, remedy: str = REPAIR) -> Any:
    """The JSON values in a file of an output, without its seal.

    Raises:
        Damaged: it is not as it was written.
        InputError: it is not there.
    """
    content = find_json(place, remedy)
    if content is None:
        raise gone(place)
    return content


def sealed_json(value: Mapping[str, Any]) -> bytes:
    """An object as canonical JSON with a seal, by which `find_json` knows whether it is as it was written."""
    return sealed(canonical_json(value))


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no NaN: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, allow_nan=False, indent=1).encode()


def damaged(place: Location, remedy: str = REPAIR) -> Damaged:
    """The error for a file that is not as it was written."""
    return Damaged(f"{place}: damaged since it was written; {remedy}")
