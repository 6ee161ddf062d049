"""The manifest of a stage's output: which files belong to it, each with its size and digest.

It is written last, so its presence means that the output is complete. Readers follow it and never list a folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dhpf.errors import InputError
from dhpf.object_store import is_uri, object_size

MANIFEST = "MANIFEST.json"


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


@dataclass(frozen=True)
class Manifest:
    """A complete stage output: its record and the commit of every task, in the plan's order."""

    record: Mapping[str, Any]
    commits: tuple[CommitRecord, ...]

    def digest(self) -> str:
        """sha256 over what the tasks wrote: the same for the same content, wherever and whenever it was written."""
        content = [(c.task, name, f["sha256"]) for c in self.commits for name, f in sorted(c.files.items())]
        return hashlib.sha256(canonical_json(content)).hexdigest()


def read_manifest(root: Path) -> Manifest | None:
    """The manifest of the output in a folder, or None while the output is not complete.

    Raises:
        InputError: it is damaged.
    """
    path = root / MANIFEST
    if not path.exists():
        return None
    content = read_json(path)
    try:
        return Manifest(content["record"], tuple(commit_record(commit, path) for commit in content["commits"]))
    except (KeyError, TypeError) as error:
        raise damaged(path) from error


def checked_path(root: Path, commit: CommitRecord, name: str, *, check_digest: bool = True) -> Path:
    """The path of a committed file, once its size and its digest are checked.

    Args:
        root: the output's folder.
        check_digest: reads the whole file; False for large files that hold digests of their own.

    Raises:
        InputError: the file is not as it was committed.
    """
    entry = commit.files[name]
    check_size(root, entry)
    path = root / str(entry["key"])
    if check_digest:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != entry["sha256"]:
            raise damaged(path)
    return path


def check_size(root: Path, entry: Mapping[str, Any]) -> None:
    """Raises InputError unless a committed file is there and has the size that it had."""
    if is_uri(entry["key"]):
        where, size = entry["key"], object_size(entry["key"])
    else:
        where = root / entry["key"]
        size = where.stat().st_size if where.exists() else -1
    if size != entry["size"]:
        raise InputError(f"{where}: {size} bytes instead of {entry['size']}; run the stage again with --restart")


def commit_record(content: Any, path: Path) -> CommitRecord:
    """A commit from JSON values that were read from `path`."""
    try:
        return CommitRecord(**content)
    except TypeError as error:
        raise damaged(path) from error


def read_json(path: Path) -> Any:
    """The JSON values in a file of an output.

    Raises:
        InputError: it is damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise damaged(path) from error


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no NaN: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, allow_nan=False, indent=1).encode()


def damaged(path: Path) -> InputError:
    """The error for a file that is not as it was written."""
    return InputError(f"{path}: damaged since it was written; run the stage again with --restart")
