"""SPair-71k: 70,958 pairs of 18 classes with keypoints, boxes and difficulty (Min et al., 2019)."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from dhpf.errors import InputError
from dhpf.pairs.source import (
    MAX_ANNOTATION_BYTES,
    MAX_LISTING_BYTES,
    points_of,
    read_inside,
    require_root,
    require_split,
    stamp_inside,
)
from dhpf.records import Box, PairRecord, Points, Rejection
from dhpf.regular_files import Stamp, UnreadableFile
from dhpf.storage import Location, location_of
from dhpf.storage.read_ahead import read_ahead

_FILES = {"train": "trn", "val": "val", "test": "test"}
_DIFFICULTIES = {
    "viewpoint": "viewpoint_variation",
    "scale": "scale_variation",
    "truncation": "truncation",
    "occlusion": "occlusion",
}


@dataclass(frozen=True)
class SPair:
    """The folder SPair-71k as published: Layout, PairAnnotation, JPEGImages.

    Attributes:
        root: that folder, or its copy in a bucket.
        layout: which of its lists, "large" or "small".
    """

    root: str
    layout: str = "large"

    splits = ("train", "val", "test")
    thresholds = ("box",)

    def pairs(self, split: str) -> Iterator[PairRecord | Rejection]:
        require_split(split, self.splits, "spair")
        root = require_root(self.root, "pair source spair")
        listing = root / "Layout" / self.layout / f"{_FILES[split]}.txt"
        content = listing.find(MAX_LISTING_BYTES)
        if content is None:
            raise InputError(f"pair list {listing}: no such file")
        names = _text(listing, content).split()
        folder = root / "PairAnnotation" / _FILES[split]
        for name, annotation in zip(names, read_ahead(partial(_find_annotation, folder), names), strict=True):
            place = folder / f"{name}.json"
            if isinstance(annotation, str):
                yield Rejection(name, "", "", f"annotation {annotation}")
                continue
            try:
                yield _record(name, json.loads(annotation))
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
                yield Rejection(name, "", "", f"annotation {place}: {type(error).__name__} {error}")

    def read(self, image_id: str) -> bytes:
        return read_inside(location_of(self.root) / "JPEGImages", image_id)

    def stamp(self, image_id: str) -> Stamp | None:
        return stamp_inside(location_of(self.root) / "JPEGImages", image_id)


def _text(place: Location, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"pair list {place}: not text ({error})") from error


def _find_annotation(folder: Location, name: str) -> bytes | str:
    """The pair's file, or why it is not read.

    A name's colon is an underscore where the archive was unpacked without colons.

    Raises:
        InputError: the store does not answer, or refuses.
    """
    missing = f"{folder / f'{name}.json'}: no such file"
    for known in dict.fromkeys((name, name.replace(":", "_"))):
        try:
            found = (folder / f"{known}.json").find(MAX_ANNOTATION_BYTES)
        except UnreadableFile as error:
            return str(error)
        except InputError:  # a ValueError too, but of the store, not of the name
            raise
        except ValueError:  # a name with a null byte
            return missing
        except OSError as error:
            return missing if error.errno == errno.ENAMETOOLONG else f"{folder / known}.json: {error.strerror}"
        if found is not None:
            return found
    return missing


def _record(name: str, annotation: dict[str, Any]) -> PairRecord:
    category = str(annotation["category"])
    source, target = (_keypoints(annotation[key], key) for key in ("src_kps", "trg_kps"))
    names = annotation.get("kps_names") or annotation.get("kps_ids") or ()
    return PairRecord(
        pair_id=name,
        category=category,
        source=f"{category}/{annotation['src_imname']}",
        target=f"{category}/{annotation['trg_imname']}",
        source_keypoints=source,
        target_keypoints=target,
        source_box=_box(annotation["src_bndbox"]),
        target_box=_box(annotation["trg_bndbox"]),
        keypoint_names=tuple(str(n) for n in names),
        difficulty={ours: int(annotation[theirs]) for ours, theirs in _DIFFICULTIES.items() if theirs in annotation},
    )


def _keypoints(values: list[list[float]], name: str) -> Points:
    """The points; [x, y, v] is refused, because where v says that a point is absent its x and y are no truth."""
    if any(len(point) != 2 for point in values):
        raise ValueError(f"{name} must be a list of [x, y]")
    return points_of([float(x) for x, _ in values], [float(y) for _, y in values])


def _box(values: list[float]) -> Box:
    x0, y0, x1, y1 = map(float, values)
    return x0, y0, x1, y1
