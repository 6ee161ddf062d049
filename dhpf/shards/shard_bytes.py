"""The bytes of a shard, wherever it lies: on a disk, or in an object store with a copy on this machine's disk.

Shards are read at random, over and over: a shard in a store is fetched once, whole, and read from the copy by all
processes of the machine. Where the disk has no room for it, each part is asked of the store.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
import uuid
from pathlib import Path

from dhpf.object_store import is_uri, read_object

KEPT_FREE = 0.1
"""Share of the disk that copies leave free."""

STALE_SECONDS = 24 * 3600
"""A copy that was not read for so long makes room for others."""


def read_shard(tar: str, tar_size: int, offset: int, size: int) -> bytes:
    """Bytes of a shard.

    Args:
        tar: path or URI.
        tar_size: of the whole shard, in bytes.
        offset, size: which bytes.

    Raises:
        InputError: the store does not give them.
    """
    path = _local_copy(tar, tar_size) if is_uri(tar) else Path(tar)
    if path is None:
        return read_object(tar, offset, size)
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def forget_copy(tar: str) -> None:
    """Removes this machine's copy of a shard in a store, if there is one: it turned out to be damaged."""
    _copy_of(tar).unlink(missing_ok=True)


def copies_folder() -> Path:
    """Where this machine keeps this user's copies."""
    return Path(tempfile.gettempdir()) / f"dhpf-shards-{os.getuid()}"


def _copy_of(tar: str) -> Path:
    return copies_folder() / f"{hashlib.sha256(tar.encode()).hexdigest()}.tar"


def _local_copy(tar: str, tar_size: int) -> Path | None:
    """The copy, fetched if need be; None where there is no room for it."""
    path = _copy_of(tar)
    try:
        if path.stat().st_size == tar_size:
            os.utime(path)
            return path
    except FileNotFoundError:
        pass
    copies_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _has_room(tar_size):
        _remove_stale()
    return _fetched(tar, tar_size, path) if _has_room(tar_size) else None


def _fetched(tar: str, tar_size: int, path: Path) -> Path | None:
    content = read_object(tar, 0, tar_size)
    partial = path.with_name(f"{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError:  # the disk is full after all: costs time, not the run
        partial.unlink(missing_ok=True)
        return None
    return path


def _has_room(size: int) -> bool:
    disk = shutil.disk_usage(copies_folder())
    return disk.free - size >= KEPT_FREE * disk.total


def _remove_stale() -> None:
    before = time.time() - STALE_SECONDS
    for path in copies_folder().iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            if path.stat().st_mtime < before:
                path.unlink()
