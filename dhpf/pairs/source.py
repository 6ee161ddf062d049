"""The protocol of pair sources, and functions that several of them share."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol, TextIO

import numpy as np

from dhpf.config import nearest_name
from dhpf.errors import InputError
from dhpf.images import MAX_FILE_BYTES, ImageError, read_bytes
from dhpf.records import PairRecord, Points, Rejection
from dhpf.regular_files import Stamp, UnreadableFile, is_folder, open_regular
from dhpf.storage import BucketLocation, FileLocation, Location, is_uri
from dhpf.storage.bucket import AccessDenied, require_uri

MAX_ANNOTATION_BYTES = 16_000_000
"""Files with the annotation of one image or pair are not read if they are larger; published ones have some kB."""

MAX_LISTING_BYTES = 1_000_000_000
"""Lists of pairs that are read whole, which those of a folder are not, are not read if they are larger."""

MAX_LINE_LETTERS = 10_000_000
"""Nor are lists with a line as long as this."""


class PairSource(Protocol):
    """Where pairs come from: a frozen dataclass whose fields are its options, cheap to make, sent to workers.

    Attributes:
        splits: names of its splits.
        thresholds: names of the PCK thresholds (dhpf.metrics.THRESHOLDS) that apply, the main one first.
    """

    @property
    def splits(self) -> tuple[str, ...]: ...

    @property
    def thresholds(self) -> tuple[str, ...]: ...

    def pairs(self, split: str) -> Iterator[PairRecord | Rejection]:
        """The pairs of a split, always in the same order; a row that cannot be used is a Rejection.

        Raises:
            InputError: the source as a whole cannot be used (a file or a column is missing).
        """
        ...

    def read(self, image_id: str) -> bytes:
        """The bytes of an image's file.

        Raises:
            ImageError: no such image, or it lies outside the source's folder.
        """
        ...

    def stamp(self, image_id: str) -> Stamp | None:
        """What tells whether an image was written again; None if there is no such image, or none that is a file."""
        ...


def pair_id_of(number: int) -> str:
    """The id of a folder's or a list's pair: its number plus 1, which is a list's row, in nine digits."""
    return f"{number + 1:09d}"


def folder_pair(number: int, source: str, target: str) -> PairRecord:
    """The pair with this number, from 0; its category is the folder of both images, or "" where they have two."""
    folder = PurePosixPath(source).parent
    category = folder.as_posix() if folder == PurePosixPath(target).parent and folder.name else ""
    return PairRecord(pair_id_of(number), category, source, target)


def require_root(root: str, owner: str) -> Location:
    """The folder `root`, which must exist, or the prefix of a bucket that the URI `root` names.

    Args:
        owner: what has this root, as an error names it, such as "pair source spair".

    Raises:
        InputError: there is no such folder, or the URI cannot be used.
    """
    if is_uri(root):
        require_uri(root, owner)
        return BucketLocation(root)
    if not is_folder(root):
        raise InputError(f"{owner}: no folder {root!r}; correct its root, or the data folder below which it lies")
    return FileLocation(Path(root))


def require_split(split: str, splits: tuple[str, ...], kind: str) -> None:
    """Raises InputError, naming the choices, unless the source has this split."""
    if split not in splits:
        raise InputError(f"pair source {kind}: no split {split!r}; {nearest_name(split, splits)}")


def read_inside(root: Location, image_id: str, listed: Stamp | None = None) -> bytes:
    """The bytes of an image whose id is its path below `root`; links and `..` may not lead out of it.

    Args:
        listed: the stamp that it had and must still have.

    Raises:
        ImageError: no such image, it lies outside, it has another stamp, or the store denies access to it.
    """
    if isinstance(root, FileLocation):
        return read_below(root.path, image_id, listed)
    path = PurePosixPath(image_id)
    if path.is_absolute() or ".." in path.parts:
        raise ImageError(f"image {image_id!r}: lies outside {root}")
    try:
        data = (root / image_id).find(MAX_FILE_BYTES, listed)
    except AccessDenied as error:
        raise ImageError(f"image {image_id}: the store denies access to it") from error
    except UnreadableFile as error:
        raise ImageError(f"image {error}") from error
    if data is None:
        raise ImageError(f"image {image_id}: no such object")
    return data


def stamp_inside(root: Location, image_id: str) -> Stamp | None:
    """The stamp of an image that `read_inside` reads; None if there is no such image."""
    try:
        return (root / image_id).stamp()
    except (OSError, ValueError, AccessDenied):  # of a name that no file has, or another reason not to read it
        return None


def read_below(root: Path, image_id: str, listed: Stamp | None = None) -> bytes:
    """As `read_inside`, of a folder."""
    folder = root.resolve()
    try:
        path = (folder / image_id).resolve()
    except (OSError, ValueError) as error:
        raise ImageError(f"image {image_id!r}: not a usable file name") from error
    if not path.is_relative_to(folder):
        raise ImageError(f"image {image_id!r}: lies outside {root}")
    return read_bytes(path, listed)


@contextlib.contextmanager
def open_text(place: Path | Location) -> Iterator[Iterator[str]]:
    """The lines of a pair list for the csv module: of a file one by one, of an object from memory.

    Raises:
        InputError: it is missing, no regular file, too large, or not text.
    """
    if isinstance(place, FileLocation):
        place = place.path
    try:
        if isinstance(place, Path):
            file = open_regular(place, f"pair list {place}")
            with io.TextIOWrapper(file, newline="", encoding="utf-8-sig") as text:
                yield _lines(text, place)
        else:
            content = place.find(MAX_LISTING_BYTES)
            if content is None:
                raise FileNotFoundError
            yield _lines(io.StringIO(content.decode("utf-8-sig"), newline=""), place)
    except FileNotFoundError as error:
        raise InputError(f"pair list {place}: no such file") from error
    except OSError as error:
        raise InputError(f"pair list {place}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"pair list {place}: not a CSV file ({error})") from error


def _lines(text: TextIO, place: Path | Location) -> Iterator[str]:
    while line := text.readline(MAX_LINE_LETTERS):
        if len(line) == MAX_LINE_LETTERS:
            raise InputError(f"pair list {place}: a line of {MAX_LINE_LETTERS:,} letters or more; is it a CSV file?")
        yield line


def read_table(path: Path | Location, required: tuple[str, ...]) -> Iterator[tuple[int, Mapping[str, str]]]:
    """(row number, row) of a CSV file with a header; rows count from 1.

    Raises:
        InputError: the file is missing, not text, or lacks a required column.
    """
    with open_text(path) as file:
        reader = csv.DictReader(file)
        found = [name.strip() for name in reader.fieldnames or []]
        require_columns(path, found, required)
        reader.fieldnames = found
        for number, row in enumerate(reader, start=1):
            yield number, {k: v or "" for k, v in row.items() if k is not None}


def require_columns(path: Path | Location, found: list[str], required: tuple[str, ...]) -> None:
    """Raises InputError, naming the columns that are there, unless all required ones are."""
    for column in required:
        if column not in found:
            hint = nearest_name(column, found) if found else "the file has no header"
            raise InputError(f"pair list {path}: no column {column!r}; {hint}")


def coordinates(text: str, separator: str) -> list[float]:
    """Numbers from separated text; raises ValueError for anything else."""
    return [float(part) for part in text.split(separator)] if text.strip() else []


def points_of(x: list[float], y: list[float]) -> Points:
    """(K, 2) points from two lists; raises ValueError when they differ in length or hold no finite number."""
    if len(x) != len(y):
        raise ValueError(f"{len(x)} x but {len(y)} y coordinates")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
        points = np.array([x, y], dtype=np.float32).T.reshape(-1, 2)
    if not np.isfinite(points).all():
        raise ValueError("a coordinate is not a finite number")
    return points
