"""Copies, on this machine's disk, of objects that it reads over and over, such as shards and checkpoints.

An object is fetched once, whole, and read from the copy by all processes of the machine. Where copies would leave too
little of the disk free, each part is asked of the store; what must be a file may fill the disk. Files need no copies.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
import uuid
from pathlib import Path

from dhpf.errors import InputError
from dhpf.regular_files import Stamp
from dhpf.storage.file_system import FileLocation
from dhpf.storage.location import Location, gone
from dhpf.storage.private_folder import private_folder

KEPT_FREE = 0.1
"""Share of what this user may write on the disk that copies of shards leave free."""

STALE_SECONDS = 24 * 3600
"""A copy that was not read for so long makes room for others."""


def read_part(place: Location, whole_size: int, offset: int, size: int) -> bytes:
    """Bytes of a file, or of an object through this machine's copy, whose key must never get other content.

    Args:
        whole_size: of the file or object, in bytes.
        offset, size: which bytes.

    Raises:
        InputError: it is gone, or the store does not give it.
    """
    path = _path_of(place, whole_size, kept_free=KEPT_FREE)
    return (place if path is None else FileLocation(path)).read_range(offset, size)


def local_file(place: Location) -> Path:
    """A path on this machine with the same name and content, for what can only read files.

    An object that was written again is fetched again.

    Raises:
        InputError: it is gone, the store does not give it, or the disk has no room for it.
    """
    stamp = place.stamp()
    if stamp is None:
        raise gone(place)
    path = _path_of(place, stamp.size, kept_free=0, stamp=stamp)
    if path is None:
        raise InputError(
            f"{place}: the disk of {copies_folder()} has no room for its {stamp.size} bytes; free some, or set TMPDIR"
        )
    return path


def forget_copy(place: Location) -> None:
    """Removes this machine's copy of an object, if there is one: it turned out to be damaged."""
    if not isinstance(place, FileLocation):
        _copy_of(place).unlink(missing_ok=True)


def copies_folder() -> Path:
    """Where this machine keeps this user's copies."""
    return private_folder("copies")


def _copy_of(place: Location, stamp: Stamp | None = None) -> Path:
    key = str(place) if stamp is None else f"{place} {stamp.version}"
    return copies_folder() / hashlib.sha256(key.encode()).hexdigest() / place.name


def _path_of(place: Location, size: int, *, kept_free: float, stamp: Stamp | None = None) -> Path | None:
    """The file itself, or an object's copy, fetched if need be; None where there is no room for it."""
    if isinstance(place, FileLocation):
        return place.path
    path = _copy_of(place, stamp)
    try:
        if path.stat().st_size == size:
            os.utime(path)
            return path
    except FileNotFoundError:
        pass
    if not _has_room(size, kept_free):
        _remove_stale()
    return _fetched(place, path, stamp) if _has_room(size, kept_free) else None


def _fetched(place: Location, path: Path, stamp: Stamp | None) -> Path | None:
    content = place.find(listed=stamp)
    if content is None:
        raise gone(place)
    partial = path.with_name(f"{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError:  # the disk is full after all: costs time, not the run
        partial.unlink(missing_ok=True)
        return None
    return path


def _has_room(size: int, kept_free: float) -> bool:
    disk = shutil.disk_usage(copies_folder())
    return disk.free - size >= kept_free * (disk.used + disk.free)  # `total` counts what is reserved for root too


def _remove_stale() -> None:
    before = time.time() - STALE_SECONDS
    for path in copies_folder().glob("*/*"):
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            if path.stat().st_mtime < before:
                path.unlink()
