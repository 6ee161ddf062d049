"""A user's own images, in a folder or in a bucket of an S3 store: how they are listed and read, and what is skipped.

An image's id is its path below the root, with forward slashes. A bucket is named as in dhpf.storage.bucket.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dhpf.errors import InputError
from dhpf.images import EXTENSIONS, is_image_name, printable, unreadable_format
from dhpf.pairs.source import read_below, read_inside, require_root
from dhpf.regular_files import Stamp, stamp_of
from dhpf.storage import BucketLocation, is_uri
from dhpf.storage.bucket import require_uri

NAMED = 3
"""How many names a remark gives."""

SAME_NAMES = "kept apart, differs from another name only in how its accents are written"


@dataclass(frozen=True)
class Remark:
    """What a user should know of some of the files below a root, such as that they are skipped.

    Attributes:
        text: the remark, such as "skipped, a link to a folder".
        count: of how many files it is true.
        first: the paths below the root of the first few of them.
    """

    text: str
    count: int
    first: tuple[str, ...]

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.first) else ""
        return f"{self.text} ({self.count:,}): {', '.join(map(printable, self.first))}{more}"


@dataclass(frozen=True)
class Listing:
    """The images below a root.

    Attributes:
        images: ids, sorted.
        stamps: (num_images, 2) int64, the size and the version (dhpf.regular_files.Stamp) of each.
        remarks: what is skipped, and why; hidden files and folders are skipped without a word.
    """

    images: tuple[str, ...]
    stamps: NDArray[np.int64]
    remarks: tuple[Remark, ...]


class ImageStore(Protocol):
    """Images below one root."""

    def listing(self) -> Listing:
        """The images, and what is skipped.

        Raises:
            InputError: the root cannot be listed.
        """

    def read(self, image_id: str, listed: Stamp | None = None) -> bytes:
        """The bytes of an image's file.

        Args:
            listed: the stamp that it had and must still have.

        Raises:
            ImageError: no such image, it lies outside the root, or it has another stamp.
        """


def open_image_store(root: str, owner: str) -> ImageStore:
    """The images below a folder or a URI.

    Args:
        owner: what has this root, as an error names it, such as "collection".

    Raises:
        InputError: no such folder, or a URI that cannot be used.
    """
    return BucketImages(root) if is_uri(root) else FolderImages(str(require_root(root, owner)))


def list_images(root: str, owner: str) -> Listing:
    """The images below a folder or a URI, of which there is at least one.

    Raises:
        InputError: there is none, and see `open_image_store`.
    """
    listing = open_image_store(root, owner).listing()
    if not listing.images:
        remarks = "".join(f"; {remark}" for remark in listing.remarks)
        raise InputError(f"{owner} {root!r}: holds no image ({', '.join(EXTENSIONS)}){remarks}")
    return listing


class KnownNames:
    """Finds images by names as people and programs write them, whose accents may be composed or not.

    Args:
        images: ids.
    """

    def __init__(self, images: Sequence[str]) -> None:
        self._exact = frozenset(images)
        self._composed: dict[str, str] = {}
        for image in images:
            if not image.isascii():
                self._composed.setdefault(unicodedata.normalize("NFC", image), image)

    def find(self, name: str) -> str | None:
        """The id that is meant, or None."""
        return name if name in self._exact else self._composed.get(unicodedata.normalize("NFC", name))


@dataclass(frozen=True)
class FolderImages:
    """Images below a folder. Links to files in it are followed, links to folders or out of it are not."""

    root: str

    def listing(self) -> Listing:
        found, inside = _Found(), Path(self.root).resolve()
        waiting = [("", os.fspath(self.root))]
        while waiting:
            prefix, folder = waiting.pop()
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                if not prefix:
                    raise InputError(f"folder {self.root}: cannot be listed ({error.strerror})") from error
                found.remark("skipped, a folder that cannot be listed", prefix)
                continue
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                path = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((f"{path}/", entry.path))
                else:
                    _take(found, entry, path, inside)
        return found.listing()

    def read(self, image_id: str, listed: Stamp | None = None) -> bytes:
        return read_below(Path(self.root), image_id, listed)


def _take(found: _Found, entry: os.DirEntry[str], path: str, inside: Path) -> None:
    """Takes what stands at a path and is no folder, or says why it is skipped."""
    try:
        facts = entry.stat()
    except OSError:  # a link to itself or to nothing, or a file that is gone
        found.remark("skipped, a link that leads nowhere", path)
        return
    if stat.S_ISDIR(facts.st_mode):
        found.remark("skipped, a link to a folder", path)
    elif found.is_image(path):
        if not stat.S_ISREG(facts.st_mode):
            found.remark("skipped, a named pipe, socket or device", path)
        elif entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(inside):
            found.remark("skipped, a link out of the folder", path)
        else:
            found.add(path, stamp_of(facts))


@dataclass(frozen=True)
class BucketImages:
    """Images below a prefix of a bucket; it can be sent to workers, because each process opens the bucket itself.

    Raises:
        InputError: a scheme that is not read, no bucket, or credentials in the URI.
    """

    uri: str

    def __post_init__(self) -> None:
        require_uri(self.uri, "collection")

    def listing(self) -> Listing:
        found, num_entries = _Found(), 0
        for entry in BucketLocation(self.uri).entries():
            num_entries += 1
            if not any(part.startswith(".") for part in entry.key.split("/")) and found.is_image(entry.key):
                found.add(entry.key, Stamp(entry.size, entry.version))
        if not num_entries:
            raise InputError(f"collection {self.uri!r}: no such bucket or prefix, or nothing in it")
        return found.listing()

    def read(self, image_id: str, listed: Stamp | None = None) -> bytes:
        return read_inside(BucketLocation(self.uri), image_id, listed)


class _Found:
    """Gathers what a listing finds."""

    def __init__(self) -> None:
        self._images: list[str] = []
        self._stamps = array("q")
        self._counts: Counter[str] = Counter()
        self._first: dict[str, list[str]] = {}

    def add(self, image_id: str, stamp: Stamp) -> None:
        self._images.append(image_id)
        self._stamps.extend(stamp)

    def is_image(self, path: str) -> bool:
        """Whether this is an image by its name, of a format that is read here; if not, it is remarked."""
        if is_image_name(path):
            return True
        self.remark(f"skipped, {unreadable_format(path) or 'no image by its name'}", path)
        return False

    def remark(self, text: str, path: str) -> None:
        self._counts[text] += 1
        first = self._first.setdefault(text, [])
        if len(first) < NAMED:
            first.append(path)

    def listing(self) -> Listing:
        images = self._images
        stamps = np.array(self._stamps).reshape(-1, 2)
        order = sorted(range(len(images)), key=images.__getitem__)
        ordered = tuple(map(images.__getitem__, order))
        for name in _written_otherwise(ordered):
            self.remark(SAME_NAMES, name)
        remarks = (Remark(text, self._counts[text], tuple(first)) for text, first in self._first.items())
        return Listing(ordered, stamps[order], tuple(remarks))


def _written_otherwise(images: Sequence[str]) -> Iterator[str]:
    """Ids that are equal to another once accents are written in the one composed way (NFC)."""
    composed: dict[str, str] = {}
    for image in images:
        if not image.isascii():
            first = composed.setdefault(unicodedata.normalize("NFC", image), image)
            if first != image:
                yield image
