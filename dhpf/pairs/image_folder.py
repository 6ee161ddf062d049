"""A user's own images: all pairs, pairs within each sub-folder, or a pair list."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dhpf.config import require_choice
from dhpf.errors import InputError
from dhpf.images import EXTENSIONS
from dhpf.pairs.source import points_of, read_inside, read_table, require_columns, require_folder, require_split
from dhpf.records import PairRecord, Points, Rejection

PAIRINGS = ("all", "within_folders", "list")

_REQUIRED = ("source", "target")


@dataclass(frozen=True)
class ImageFolder:
    """The images below a folder; an image's id is its path below it, with forward slashes.

    Attributes:
        root: the folder.
        pairing: "all" unordered pairs, those "within_folders" (each image with the others of its own folder), or a
            "list".
        pair_list: a CSV or Parquet file with the columns source and target and, if wanted, category, and
            source_points and target_points: "x,y;x,y;..." in CSV, lists of [x, y] in Parquet.
    """

    root: str
    pairing: str = "all"
    pair_list: str | None = None

    splits = ("all",)
    thresholds = ("image",)

    def __post_init__(self) -> None:
        require_choice("image_folder.pairing", self.pairing, PAIRINGS)
        if (self.pairing == "list") != (self.pair_list is not None):
            raise InputError(
                f"image_folder.pair_list: {self.pair_list!r} with pairing {self.pairing!r}; "
                "give a pair_list with pairing 'list', and only with it"
            )

    def pairs(self, split: str) -> Iterator[PairRecord | Rejection]:
        require_split(split, self.splits, "image_folder")
        images = list_images(require_folder(self.root, "image_folder"))
        if not images:
            raise InputError(f"pair source image_folder: no image ({', '.join(EXTENSIONS)}) in {self.root!r}")
        if self.pairing == "list":
            yield from _listed(Path(str(self.pair_list)), frozenset(images))
        elif self.pairing == "all":
            yield from _combinations(images, 0)
        else:
            first = 0
            for _, group in itertools.groupby(sorted(images, key=_folder_first), key=lambda i: PurePosixPath(i).parent):
                members = list(group)
                yield from _combinations(members, first)
                first += len(members) * (len(members) - 1) // 2

    def read(self, image_id: str) -> bytes:
        return read_inside(self.root, image_id)


def list_images(root: Path) -> list[str]:
    """Ids of the images below a folder, sorted; hidden files and links that lead out of it are left out."""
    inside = root.resolve()
    found = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [s for s in subfolders if not s.startswith(".")]
        for name in files:
            path = Path(folder) / name
            if name.startswith(".") or path.suffix.lower() not in EXTENSIONS:
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                continue
            found.append(path.relative_to(root).as_posix())
    return sorted(found)


def _folder_first(image: str) -> tuple[str, str]:
    return PurePosixPath(image).parent.as_posix(), image


def _combinations(images: list[str], first: int) -> Iterator[PairRecord]:
    for number, (source, target) in enumerate(itertools.combinations(images, 2), start=first + 1):
        folder = PurePosixPath(source).parent
        category = folder.as_posix() if folder == PurePosixPath(target).parent and folder.name else ""
        yield PairRecord(pair_id=f"{number:09d}", category=category, source=source, target=target)


def _listed(path: Path, images: frozenset[str]) -> Iterator[PairRecord | Rejection]:
    rows_of_pairs: dict[tuple[str, str], int] = {}
    rows = _parquet_rows(path) if path.suffix.lower() == ".parquet" else read_table(path, _REQUIRED)
    for number, row in rows:
        pair_id = f"{number:09d}"
        source, target = str(row["source"] or ""), str(row["target"] or "")
        reason = _unusable(source, target, images, rows_of_pairs)
        if reason is None:
            rows_of_pairs[source, target] = number
            try:
                yield PairRecord(
                    pair_id=pair_id,
                    category=str(row.get("category") or ""),
                    source=source,
                    target=target,
                    source_keypoints=_points(row.get("source_points")),
                    target_keypoints=_points(row.get("target_points")),
                )
                continue
            except (ValueError, TypeError) as error:
                reason = str(error)
        yield Rejection(pair_id, source, target, f"{path} row {number}: {reason}")


def _unusable(source: str, target: str, images: frozenset[str], seen: Mapping[tuple[str, str], int]) -> str | None:
    for name in (source, target):
        if name not in images:
            return f"image {name!r} is not in the folder"
    if source == target:
        return f"names the same image {source!r} twice"
    if (source, target) in seen:
        return f"the pair is already on row {seen[source, target]}"
    return None


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            require_columns(path, file.schema_arrow.names, _REQUIRED)
            batches: Iterable[pa.RecordBatch] = file.iter_batches(batch_size=10_000)
            yield from enumerate((row for batch in batches for row in batch.to_pylist()), start=1)
    except FileNotFoundError as error:
        raise InputError(f"pair list {path}: no such file") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"pair list {path}: not a readable Parquet file ({error})") from error


def _points(value: Any) -> Points | None:
    if value is None or value == "":
        return None
    points = [part.split(",") for part in value.split(";")] if isinstance(value, str) else value
    if any(len(point) != 2 for point in points):
        raise ValueError("points are written x,y;x,y;...")
    return points_of([float(x) for x, _ in points], [float(y) for _, y in points])
