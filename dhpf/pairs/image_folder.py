"""The pair source of a user's own images, in a folder or in a bucket of an S3 store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dhpf.pairs.image_stores import KnownNames, list_images, open_image_store
from dhpf.pairs.pair_list import (
    already_there,
    not_there,
    pair_list_file,
    parse_box,
    parse_points,
    read_rows,
    rejection,
    twice_the_same,
)
from dhpf.pairs.source import folder_pair, pair_id_of, require_split, stamp_inside
from dhpf.planning.select import All, PairList, PairSelect, choose_pairs
from dhpf.records import PairRecord, Rejection
from dhpf.regular_files import Stamp
from dhpf.storage import location_of


@dataclass(frozen=True)
class ImageFolder:
    """The images below a folder or a bucket's prefix; an image's id is its path below it, with forward slashes.

    Attributes:
        root: the folder, or an s3:// URI (dhpf.storage.bucket).
        select: which pairs. A pair list may have, beside the columns source and target, a category, source_points and
            target_points ("x,y;x,y;..." in CSV, lists of [x, y] in Parquet), source_box and target_box ("x0,y0,x1,y1").
    """

    root: str
    select: PairSelect = All()

    splits = ("all",)
    thresholds = ("image",)

    def pairs(self, split: str) -> Iterator[PairRecord | Rejection]:
        require_split(split, self.splits, "image_folder")
        images = list_images(self.root, "pair source image_folder").images
        if isinstance(self.select, PairList):
            yield from _listed(pair_list_file(self.select.pair_list), KnownNames(images))
            return
        for number, (source, target) in enumerate(choose_pairs(self.select, images).pairs()):
            yield folder_pair(number, source, target)

    def read(self, image_id: str) -> bytes:
        return open_image_store(self.root, "pair source image_folder").read(image_id)

    def stamp(self, image_id: str) -> Stamp | None:
        return stamp_inside(location_of(self.root), image_id)


def _listed(path: Path, images: KnownNames) -> Iterator[PairRecord | Rejection]:
    rows_of_pairs: dict[tuple[str, str], int] = {}
    for number, row in read_rows(path):
        named = str(row["source"] or ""), str(row["target"] or "")
        source, target = (images.find(name) or name for name in named)
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
                    source_box=parse_box(row.get("source_box"), "source_box"),
                    target_box=parse_box(row.get("target_box"), "target_box"),
                )
                rows_of_pairs[source, target] = number
                yield pair
                continue
            except (ValueError, TypeError) as error:
                reason = str(error)
        yield rejection(path, number, source, target, reason)


def _unusable(source: str, target: str, images: KnownNames, seen: Mapping[tuple[str, str], int]) -> str | None:
    for name in (source, target):
        if images.find(name) is None:
            return not_there(name)
    if source == target:
        return twice_the_same(source)
    if (source, target) in seen:
        return already_there(seen[source, target])
    return None
