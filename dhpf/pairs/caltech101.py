"""Caltech-101: pairs of images with object outlines, for mask transfer (Kim et al., CVPR 2013)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from dhpf.errors import InputError
from dhpf.pairs.source import coordinates, open_text, points_of, read_inside, require_root, require_split, stamp_inside
from dhpf.records import PairRecord, Points, Rejection
from dhpf.regular_files import Stamp
from dhpf.storage import Location, location_of

LISTS = ("test_pairs_caltech_with_category.csv", "pairs_images_only.csv")
"""The published list, and one without outlines; where both are there the published one is read."""


@dataclass(frozen=True)
class Caltech101:
    """The folder Caltech-101: 101_ObjectCategories and a pair list.

    The list's columns are read by position: source image, target image, class number and, if there are seven,
    XA, YA, XB, YB with the comma-joined points of the two outlines.

    Attributes:
        root: that folder, or its copy in a bucket.
    """

    root: str

    splits = ("test",)
    thresholds = ()

    def pairs(self, split: str) -> Iterator[PairRecord | Rejection]:
        require_split(split, self.splits, "caltech101")
        root = require_root(self.root, "pair source caltech101")
        path = next((root / name for name in LISTS if (root / name).exists()), None)
        if path is None:
            raise InputError(f"pair source caltech101: neither {' nor '.join(LISTS)} in {root}")
        with open_text(path) as file:
            rows = csv.reader(file)
            header = next(rows, [])
            if len(header) not in (3, 7):
                raise InputError(f"pair list {path}: {len(header)} columns, expected 3 or 7")
            for number, row in enumerate(rows, start=1):
                yield _record(path, number, row, len(header))

    def read(self, image_id: str) -> bytes:
        return read_inside(location_of(self.root) / "101_ObjectCategories", image_id)

    def stamp(self, image_id: str) -> Stamp | None:
        return stamp_inside(location_of(self.root) / "101_ObjectCategories", image_id)


def _record(path: Location, number: int, row: list[str], num_columns: int) -> PairRecord | Rejection:
    pair_id = f"{number:06d}"
    source, target = ("/".join(PurePosixPath(listed).parts[-2:]) for listed in (*row, "", "")[:2])
    try:
        if len(row) != num_columns:
            raise ValueError(f"{len(row)} columns, the header has {num_columns}")
        source_outline, target_outline = _outlines(row)
        return PairRecord(
            pair_id=pair_id,
            category=PurePosixPath(source).parent.name,
            source=source,
            target=target,
            source_outline=source_outline,
            target_outline=target_outline,
        )
    except ValueError as error:
        return Rejection(pair_id, source, target, f"{path} row {number}: {error}")


def _outlines(row: list[str]) -> tuple[Points | None, Points | None]:
    if len(row) < 7:
        return None, None
    xa, ya, xb, yb = (coordinates(text, ",") for text in row[3:7])
    return points_of(xa, ya), points_of(xb, yb)
