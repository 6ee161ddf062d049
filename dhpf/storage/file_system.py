"""Files and folders as locations."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dhpf.errors import InputError
from dhpf.regular_files import Stamp, open_regular, read_regular, stamp_of
from dhpf.storage.location import Entry, Location, gone

_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system without hard links answers: FAT, many object stores mounted as folders."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Write = Callable[[BinaryIO], object]


@dataclass(frozen=True)
class FileLocation(Location):
    """A file or a folder. What `put` and `put_if_absent` have written outlasts a power failure."""

    path: Path

    def __truediv__(self, key: str) -> FileLocation:
        return FileLocation(self.path / key)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    def put(self, content: bytes) -> None:
        self._put(lambda file: file.write(content))

    def put_file(self, path: Path) -> None:
        with path.open("rb") as source:
            self._put(lambda file: shutil.copyfileobj(source, file))

    def _put(self, write: Write) -> None:
        with self._being_written():
            self._write_temporary(write).replace(self.path)
            _sync_folder(self.path.parent)

    def put_if_absent(self, content: bytes) -> bool:
        with self._being_written():
            temporary = self._write_temporary(lambda file: file.write(content))
            try:
                os.link(temporary, self.path)  # unlike a rename, a link never overwrites
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                raise InputError(
                    f"folder {self.path.parent}: its file system has no hard links, by which one of several writers is "
                    "chosen; use a --work folder on a local or NFS disk"
                ) from error
            finally:
                temporary.unlink()
            _sync_folder(self.path.parent)
        return True

    def find(self, limit: int | None = None, listed: Stamp | None = None) -> bytes | None:
        try:
            return read_regular(self.path, str(self), limit, listed)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_range(self, begin: int, size: int) -> bytes:
        try:
            with open_regular(self.path, str(self)) as file:
                file.seek(begin)
                return file.read(size)
        except FileNotFoundError as error:
            raise gone(self) from error

    def stamp(self) -> Stamp | None:
        return stamp_of(self.path.stat()) if self.path.is_file() else None

    def entries(self, *, hidden: bool = False) -> Iterator[Entry]:
        found = list(_entries_below(self.path, "", hidden=hidden))
        return iter(sorted(found, key=lambda entry: entry.key))

    def delete(self) -> None:
        with self._being_written():
            self.path.unlink(missing_ok=True)

    def delete_all(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.path)

    @contextlib.contextmanager
    def _being_written(self) -> Iterator[None]:
        """Turns what the file system says of a full or read-only disk into an InputError."""
        try:
            yield
        except OSError as error:
            remedy = "make room" if error.errno in _NO_ROOM else "see to it that its folder can be written"
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); {remedy}, and give the same command again: what "
                "is done stays"
            ) from error

    def _write_temporary(self, write: Write) -> Path:
        _make_folder_durably(self.path.parent)
        temporary = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        try:
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:  # a full disk, an interrupt: leave no half file behind
            temporary.unlink(missing_ok=True)
            raise
        return temporary


def _entries_below(folder: str | Path, prefix: str, *, hidden: bool) -> Iterator[Entry]:
    """The files below a folder, each key with the prefix; symbolic links to folders are not followed."""
    try:
        found = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from _entries_below(entry.path, f"{prefix}{entry.name}/", hidden=hidden)
        elif (hidden or not entry.name.startswith(".")) and not entry.is_dir():
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                yield Entry(f"{prefix}{entry.name}", *stamp_of(entry.stat()))


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
