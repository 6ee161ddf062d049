"""PF-WILLOW: 900 test pairs of 10 sub-classes, 10 keypoints each (Ham et al., CVPR 2016)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from dhpf.pairs.source import points_of, read_inside, read_table, require_root, require_split, stamp_inside
from dhpf.records import PairRecord, Rejection
from dhpf.regular_files import Stamp
from dhpf.storage import location_of

NUM_KEYPOINTS = 10


@dataclass(frozen=True)
class PFWillow:
    """The folder PF-WILLOW as published: test_pairs.csv and one folder of images per sub-class.

    Attributes:
        root: that folder, or its copy in a bucket.
    """

    root: str

    splits = ("test",)
    thresholds = ("keypoint-extent", "legacy-padded")

    def pairs(self, split: str) -> Iterator[PairRecord | Rejection]:
        require_split(split, self.splits, "pf_willow")
        axes = [[f"{axis}{k}" for k in range(1, NUM_KEYPOINTS + 1)] for axis in ("XA", "YA", "XB", "YB")]
        columns = ("imageA", "imageB", *(name for axis in axes for name in axis))
        path = require_root(self.root, "pair source pf_willow") / "test_pairs.csv"
        for number, row in read_table(path, columns):
            pair_id = f"{number:06d}"
            source, target = _below_root(row["imageA"]), _below_root(row["imageB"])
            try:
                xa, ya, xb, yb = ([float(row[name]) for name in axis] for axis in axes)
                yield PairRecord(
                    pair_id=pair_id,
                    category=PurePosixPath(source).parent.name,
                    source=source,
                    target=target,
                    source_keypoints=points_of(xa, ya),
                    target_keypoints=points_of(xb, yb),
                )
            except ValueError as error:
                yield Rejection(pair_id, source, target, f"{path} row {number}: {error}")

    def read(self, image_id: str) -> bytes:
        return read_inside(location_of(self.root), image_id)

    def stamp(self, image_id: str) -> Stamp | None:
        return stamp_inside(location_of(self.root), image_id)


def _below_root(listed: str) -> str:
    """`PF-WILLOW/car(G)/x.png` as listed -> `car(G)/x.png`."""
    return "/".join(PurePosixPath(listed).parts[-2:])
