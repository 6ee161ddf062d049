"""PF-PASCAL: pairs of 20 PASCAL VOC classes with keypoints (Ham et al., TPAMI 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from dhpf.errors import InputError
from dhpf.pairs.mat_file import read_array
from dhpf.pairs.source import (
    MAX_ANNOTATION_BYTES,
    coordinates,
    points_of,
    read_inside,
    read_table,
    require_root,
    require_split,
    stamp_inside,
)
from dhpf.records import PairRecord, Points, Rejection
from dhpf.regular_files import Stamp, UnreadableFile
from dhpf.storage import location_of

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""Names of the class numbers 1 to 20."""

_SET, _NOT_SET = {"1", "1.0", "true"}, {"", "0", "0.0", "false"}

_FILES = {"train": "trn", "val": "val", "test": "test"}


@dataclass(frozen=True)
class PFPascal:
    """The folder PF-PASCAL as published: {trn,val,test}_pairs.csv, JPEGImages, Annotations.

    Keypoints come from the list where it has them (columns XA, YA, XB, YB), else from the two images' .mat
    annotations, of which only points present in both images are kept.

    Attributes:
        root: that folder, or its copy in a bucket.
    """

    root: str

    splits = ("train", "val", "test")
    thresholds = ("image",)

    def pairs(self, split: str) -> Iterator[PairRecord | Rejection]:
        require_split(split, self.splits, "pf_pascal")
        path = require_root(self.root, "pair source pf_pascal") / f"{_FILES[split]}_pairs.csv"
        for number, row in read_table(path, ("source_image", "target_image", "class")):
            pair_id = f"{number:06d}"
            source, target = (PurePosixPath(row[c]).name for c in ("source_image", "target_image"))
            try:
                category = _class_name(row["class"])
                source_points, target_points = self._keypoints(row, category, source, target)
                yield PairRecord(
                    pair_id=pair_id,
                    category=category,
                    source=source,
                    target=target,
                    source_keypoints=source_points,
                    target_keypoints=target_points,
                    mirrored=_is_set(row.get("flip", "")),
                )
            except ValueError as error:
                yield Rejection(pair_id, source, target, f"{path} row {number}: {error}")

    def read(self, image_id: str) -> bytes:
        return read_inside(location_of(self.root) / "JPEGImages", image_id)

    def stamp(self, image_id: str) -> Stamp | None:
        return stamp_inside(location_of(self.root) / "JPEGImages", image_id)

    def _keypoints(self, row: Mapping[str, str], category: str, source: str, target: str) -> tuple[Points, Points]:
        if row.get("XA", "").strip():
            xa, ya, xb, yb = (coordinates(row.get(c, ""), ";") for c in ("XA", "YA", "XB", "YB"))
            return points_of(xa, ya), points_of(xb, yb)
        left, right = (self._annotation(category, image) for image in (source, target))
        if left.shape != right.shape:
            raise ValueError(f"annotations of {source} and {target} have {len(left)} and {len(right)} keypoints")
        present = np.isfinite(left).all(axis=1) & np.isfinite(right).all(axis=1)
        if not present.any():
            raise ValueError(f"{source} and {target} have no keypoint in common")
        return left[present], right[present]

    def _annotation(self, category: str, image: str) -> NDArray[np.float32]:
        """(K, 2) keypoints of an image, NaN where absent."""
        path = location_of(self.root) / "Annotations" / category / f"{PurePosixPath(image).stem}.mat"
        try:
            content = path.find(MAX_ANNOTATION_BYTES)
        except UnreadableFile as error:
            raise InputError(f"annotation {error}") from error
        if content is None:
            raise InputError(f"annotation {path}: no such file")
        try:
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite: a point that is absent
                points = read_array(content, "kps").astype(np.float32)
        except ValueError as error:
            raise InputError(f"annotation {path}: no readable keypoints ({error})") from error
        if points.ndim != 2 or points.shape[1] != 2:
            raise InputError(f"annotation {path}: kps has the shape {points.shape}, not (K, 2)")
        return points


def _is_set(text: str) -> bool:
    """A flag as lists are written by hand, by MATLAB, or by pandas."""
    value = text.strip().lower()
    if value not in _SET | _NOT_SET:
        raise ValueError(f"flip is {text!r}, expected 0 or 1")
    return value in _SET


def _class_name(text: str) -> str:
    number = int(text)
    if not 1 <= number <= len(CLASSES):
        raise ValueError(f"class {number} is outside 1 to {len(CLASSES)}")
    return CLASSES[number - 1]
