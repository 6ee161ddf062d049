"""Opens files that somebody else may have put there: regular ones alone, and none beyond a limit.

A named pipe makes whoever opens it wait, a device may never end, and a file of many gigabytes takes all memory: file
type and size are asked before anything is read, without waiting.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from dhpf.errors import InputError


class UnreadableFile(InputError):
    """A file that is not read because of what it is, how large it is, or because it is no longer what was listed."""


class Stamp(NamedTuple):
    """What tells contents of one file or object apart without reading them.

    Attributes:
        size: in bytes.
        version: a file's time of change in nanoseconds; of an object a number made of what its store says (ETag).
    """

    size: int
    version: int


_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def is_file(path: str | Path) -> bool:
    """Whether a regular file is there; also of a name that no file can have, being too long or not text."""
    return _is(stat.S_ISREG, path)


def is_folder(path: str | Path) -> bool:
    """Whether a folder is there, as `is_file` says it of files."""
    return _is(stat.S_ISDIR, path)


def _is(kind: Callable[[int], bool], path: str | Path) -> bool:
    try:
        return kind(os.stat(path).st_mode)  # noqa: PTH116 - what a path's own methods raise differs by Python version
    except (OSError, ValueError):
        return False


def open_regular(path: str | Path, where: str, limit: int | None = None) -> BufferedReader:
    """Opens a file for reading bytes, if it is a regular file.

    Args:
        where: how to call the file in an error, such as "image cat.jpg".
        limit: bytes that it may hold; None for a file that is read piece by piece.

    Raises:
        UnreadableFile: it is no regular file, or larger.
        OSError: it cannot be opened.
    """
    _require_regular(Path(path).stat(), where, limit)  # before it is opened: some devices act when they are
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _require_regular(os.fstat(descriptor), where, limit)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | Path, where: str, limit: int | None = None, listed: Stamp | None = None) -> bytes:
    """The content of a file, as `open_regular` opens it.

    Args:
        listed: the stamp that it had and must still have when it has been read.

    Raises:
        UnreadableFile: it is no regular file, larger, or gives more bytes than it has, as files of the system do.
        OSError: it cannot be read.
    """
    with open_regular(path, where, limit) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read() if limit is None else file.read(size + 1)
        require_as_listed(stamp_of(os.fstat(file.fileno())), where, listed)
    if limit is not None and len(content) > size:
        raise UnreadableFile(f"{where}: grows while it is read (it had {size:,} bytes)")
    return content


def require_size_within(size: int, where: str, limit: int | None) -> None:
    """Raises UnreadableFile, which says both numbers, for what holds more bytes than the limit."""
    if limit is not None and size > limit:
        raise UnreadableFile(f"{where}: {size:,} bytes, more than {limit:,} are not read")


def stamp_of(found: os.stat_result) -> Stamp:
    """The stamp of a file."""
    return Stamp(found.st_size, found.st_mtime_ns)


def require_as_listed(found: Stamp, where: str, listed: Stamp | None) -> None:
    """Raises UnreadableFile for what has another stamp than when it was listed."""
    if listed is not None and found != listed:
        now = f"{found.size:,} now" if found.size != listed.size else "as many now, written later"
        raise UnreadableFile(f"{where}: changed since the run began ({listed.size:,} bytes then, {now})")


def _require_regular(found: os.stat_result, where: str, limit: int | None) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise UnreadableFile(f"{where}: {kind}, not a file that can be read; remove it, or correct the path")
    require_size_within(found.st_size, where, limit)
