"""SPair-71k: 70,958 pairs of 18 classes with keypoints, boxes and difficulty (Min et al., 2019)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dhpf.errors import InputError
from dhpf.pairs.source import points_of, read_inside, require_folder, require_split
from dhpf.records import Box, PairRecord, Rejection

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
        root: that folder.
        layout: which of its lists, "large" or "small".
    """

    root: str
    layout: str = "large"

    splits = ("train", "val", "test")
    thresholds = ("box",)

    def pairs(self, split: str) -> Iterator[PairRecord | Rejection]:
        require_split(split, self.splits, "spair")
        root = require_folder(self.root, "pair source spair")
        listing = root / "Layout" / self.layout / f"{_FILES[split]}.txt"
        if not listing.is_file():
            raise InputError(f"pair list {listing}: no such file")
        for name in listing.read_text(encoding="utf-8").split():
            path = _annotation_file(root / "PairAnnotation" / _FILES[split], name)
            try:
                yield _record(name, json.loads(path.read_text(encoding="utf-8")))
            except FileNotFoundError:
                yield Rejection(name, "", "", f"annotation {path}: no such file")
            except (ValueError, KeyError, TypeError) as error:
                yield Rejection(name, "", "", f"annotation {path}: {type(error).__name__} {error}")

    def read(self, image_id: str) -> bytes:
        return read_inside(str(Path(self.root) / "JPEGImages"), image_id)


def _annotation_file(folder: Path, name: str) -> Path:
    """The pair's file; a name's colon is an underscore where the archive was unpacked without colons."""
    path = folder / f"{name}.json"
    without_colon = folder / f"{name.replace(':', '_')}.json"
    return without_colon if not path.exists() and without_colon.exists() else path


def _record(name: str, annotation: dict[str, Any]) -> PairRecord:
    category = str(annotation["category"])
    source, target = ([list(map(float, point)) for point in annotation[k]] for k in ("src_kps", "trg_kps"))
    names = annotation.get("kps_names") or annotation.get("kps_ids") or ()
    return PairRecord(
        pair_id=name,
        category=category,
        source=f"{category}/{annotation['src_imname']}",
        target=f"{category}/{annotation['trg_imname']}",
        source_keypoints=points_of([p[0] for p in source], [p[1] for p in source]),
        target_keypoints=points_of([p[0] for p in target], [p[1] for p in target]),
        source_box=_box(annotation["src_bndbox"]),
        target_box=_box(annotation["trg_bndbox"]),
        keypoint_names=tuple(str(n) for n in names),
        difficulty={ours: int(annotation[theirs]) for ours, theirs in _DIFFICULTIES.items() if theirs in annotation},
    )


def _box(values: list[float]) -> Box:
    x0, y0, x1, y1 = map(float, values)
    return x0, y0, x1, y1
