"""A place that holds bytes: a file or a folder of a file system, or an object or a prefix of a bucket.

Everything that is read and written between machines goes through this one interface, so that a work folder may be a
folder or an s3:// URI.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dhpf.errors import InputError
from dhpf.regular_files import Stamp


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or object below a location.

    Attributes:
        key: its path below the location, with forward slashes.
        size: in bytes.
        version: as in Stamp; entries are equal without it.
    """

    key: str
    size: int
    version: int = field(default=0, compare=False)


class Location(ABC):
    """A file or an object, or what has files or objects below it; an immutable value that may be sent to workers.

    Where a bucket's server does not answer, every method raises InputError after some patience (dhpf.storage.bucket),
    and so does one that writes to a disk that is full or may not be written. Other errors of files are OSErrors.
    """

    @abstractmethod
    def __truediv__(self, key: str) -> Location:
        """What has this key below the location."""

    @abstractmethod
    def __str__(self) -> str:
        """The path or the URI, as `dhpf.storage.location_of` takes it."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part of the path."""

    @abstractmethod
    def put(self, content: bytes) -> None:
        """Writes it whole: a reader sees what was there before, or all of the new content."""

    @abstractmethod
    def put_if_absent(self, content: bytes) -> bool:
        """Writes it whole unless something is there; True for the one caller that did.

        Callers that must be told apart put different contents: after a lost answer, a bucket's content says who won.

        Raises:
            InputError: the file system cannot choose one of several callers.
        """

    @abstractmethod
    def put_file(self, path: Path) -> None:
        """Writes what a file of this machine holds, as `put` does, however large it is."""

    @abstractmethod
    def find(self, limit: int | None = None, listed: Stamp | None = None) -> bytes | None:
        """The content, or None where there is nothing.

        Args:
            limit: bytes that it may hold; to be given for what others have put there.
            listed: the stamp that it had and must still have.

        Raises:
            UnreadableFile: it holds more, is no regular file, or has another stamp.
        """

    def read(self) -> bytes:
        """The content.

        Raises:
            InputError: there is nothing.
        """
        content = self.find()
        if content is None:
            raise gone(self)
        return content

    @abstractmethod
    def read_range(self, begin: int, size: int) -> bytes:
        """Bytes of the content from `begin` on; fewer where it ends.

        Raises:
            InputError: there is nothing.
        """

    @abstractmethod
    def stamp(self) -> Stamp | None:
        """What tells its content from others, or None where there is nothing."""

    def size(self) -> int | None:
        """Bytes of the content, or None where there is nothing."""
        stamp = self.stamp()
        return None if stamp is None else stamp.size

    def exists(self) -> bool:
        """Whether a file or object is there."""
        return self.size() is not None

    @abstractmethod
    def entries(self, *, hidden: bool = False) -> Iterator[Entry]:
        """All files or objects below, at any depth, sorted by key.

        Args:
            hidden: also those whose own name begins with a dot, among them what a killed writer left.
        """

    @abstractmethod
    def delete(self) -> None:
        """Removes the file or object; nothing happens where there is none."""

    @abstractmethod
    def delete_all(self) -> None:
        """Removes everything below, and what is here."""


def gone(location: Location) -> InputError:
    """The error for what should be there and is not."""
    return InputError(f"{location}: is not there, or no longer; run the stage that writes it again with --restart")
