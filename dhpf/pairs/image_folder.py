"""The pair source of a user's own images, in a folder or in a bucket of an S3 store, and how these are listed and read.

An image's id is its path below the root, with forward slashes. A bucket is named as in dhpf.storage.bucket.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from dhpf.errors import InputError
from dhpf.images import EXTENSIONS
from dhpf.pairs.pair_list import (
    already_there,
    not_there,
    pair_list_file,
    parse_points,
    read_rows,
    rejection,
    twice_the_same,
)
from dhpf.pairs.source import pair_id_of, read_below, read_inside, require_root, require_split
from dhpf.planning.select import All, PairList, PairSelect, choose_pairs
from dhpf.records import PairRecord, Rejection
from dhpf.storage import BucketLocation, is_uri
from dhpf.storage.bucket import require_uri


class ImageStore(Protocol):
    """Images below one root."""

    def ids(self) -> list[str]:
        """Ids of the images, sorted; hidden ones are left out."""

    def num_other_files(self) -> int:
        """How many files below the root are neither images nor hidden."""

    def read(self, image_id: str) -> bytes:
        """The bytes of an image's file.

        Raises:
            ImageError: no such image, or it lies outside the root.
        """

    def size(self, image_id: str) -> int:
        """Size of an image's file in bytes."""


def open_image_store(root: str, owner: str) -> ImageStore:
    """The images below a folder or a URI.

    Args:
        owner: what has this root, as an error names it, such as "collection".

    Raises:
        InputError: no such folder, or a URI that cannot be used.
    """
    return BucketImages(root) if is_uri(root) else FolderImages(str(require_root(root, owner)))


@dataclass(frozen=True)
class FolderImages:
    """Images below a folder; hidden files and links that lead out of it are left out."""

    root: str

    def ids(self) -> list[str]:
        root = Path(self.root)
        inside = root.resolve()
        found = []
        for path in self._shown():
            if _is_image(path.name) and (not path.is_symlink() or path.resolve().is_relative_to(inside)):
                found.append(path.relative_to(root).as_posix())
        return sorted(found)

    def num_other_files(self) -> int:
        return sum(not _is_image(path.name) for path in self._shown())

    def _shown(self) -> Iterator[Path]:
        for folder, subfolders, files in os.walk(self.root):
            subfolders[:] = [s for s in subfolders if _is_shown(s)]
            yield from (Path(folder) / name for name in files if _is_shown(name))

    def read(self, image_id: str) -> bytes:
        return read_below(Path(self.root), image_id)

    def size(self, image_id: str) -> int:
        return (Path(self.root) / image_id).stat().st_size


@dataclass(frozen=True)
class BucketImages:
    """Images below a prefix of a bucket; it can be sent to workers, because each process opens the bucket itself.

    Raises:
        InputError: a scheme that is not read, no bucket, or credentials in the URI.
    """

    uri: str

    def __post_init__(self) -> None:
        require_uri(self.uri, "collection")

    def ids(self) -> list[str]:
        return [path.as_posix() for path in self._shown() if _is_image(path.name)]

    def num_other_files(self) -> int:
        return sum(not _is_image(path.name) for path in self._shown())

    def _shown(self) -> Iterator[PurePosixPath]:
        """Paths of the files below the prefix that are not hidden."""
        entries = list(BucketLocation(self.uri).entries())
        if not entries:
            raise InputError(f"collection {self.uri!r}: no such bucket or prefix, or nothing in it")
        paths = (PurePosixPath(entry.key) for entry in entries)
        return (path for path in paths if all(map(_is_shown, path.parts)))

    def read(self, image_id: str) -> bytes:
        return read_inside(BucketLocation(self.uri), image_id)

    def size(self, image_id: str) -> int:
        return (BucketLocation(self.uri) / image_id).size() or 0


@dataclass(frozen=True)
class ImageFolder:
    """The images below a folder or a bucket's prefix; an image's id is its path below it, with forward slashes.

    Attributes:
        root: the folder, or an s3:// URI (dhpf.storage.bucket).
        select: which pairs. A pair list may have, beside the columns source and target, a category, source_points and
            target_points: "x,y;x,y;..." in CSV, lists of [x, y] in Parquet.
    """

    root: str
    select: PairSelect = All()

    splits = ("all",)
    thresholds = ("image",)

    def pairs(self, split: str) -> Iterator[PairRecord | Rejection]:
        require_split(split, self.splits, "image_folder")
        images = open_image_store(self.root, "pair source image_folder").ids()
        if not images:
            raise InputError(f"pair source image_folder: no image ({', '.join(EXTENSIONS)}) in {self.root!r}")
        if isinstance(self.select, PairList):
            yield from _listed(pair_list_file(self.select.pair_list), frozenset(images))
            return
        for number, (source, target) in enumerate(choose_pairs(self.select, images).pairs()):
            yield folder_pair(number, source, target)

    def read(self, image_id: str) -> bytes:
        return open_image_store(self.root, "pair source image_folder").read(image_id)


def folder_pair(number: int, source: str, target: str) -> PairRecord:
    """The pair with this number, from 0; its category is the folder of both images, or "" where they have two."""
    folder = PurePosixPath(source).parent
    category = folder.as_posix() if folder == PurePosixPath(target).parent and folder.name else ""
    return PairRecord(pair_id_of(number), category, source, target)


def _listed(path: Path, images: frozenset[str]) -> Iterator[PairRecord | Rejection]:
    rows_of_pairs: dict[tuple[str, str], int] = {}
    for number, row in read_rows(path):
        source, target = str(row["source"] or ""), str(row["target"] or "")
        reason = _unusable(source, target, images, rows_of_pairs)
        if reason is None:
            try:
                pair = PairRecord(
                    pair_id=pair_id_of(number),
                    category=str(row.get("category") or ""),
                    source=source,
                    target=target,
                    source_keypoints=parse_points(row.get("source_points")),
                    target_keypoints=parse_points(row.get("target_points")),
                )
                rows_of_pairs[source, target] = number
                yield pair
                continue
            except (ValueError, TypeError) as error:
                reason = str(error)
        yield rejection(path, number, source, target, reason)


def _unusable(source: str, target: str, images: frozenset[str], seen: Mapping[tuple[str, str], int]) -> str | None:
    for name in (source, target):
        if name not in images:
            return not_there(name)
    if source == target:
        return twice_the_same(source)
    if (source, target) in seen:
        return already_there(seen[source, target])
    return None


def _is_shown(name: str) -> bool:
    return not name.startswith(".")


def _is_image(name: str) -> bool:
    return _is_shown(name) and PurePosixPath(name).suffix.lower() in EXTENSIONS
