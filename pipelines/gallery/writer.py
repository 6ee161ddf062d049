"""Writes a gallery: streams each table twice, once to choose pairs and once to write them, a hundred to a file.

What stays in memory is what the page's list holds: some numbers for each pair that is shown, at most `limit` of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dhpf.drawing import in_words
from dhpf.pipelines.gallery.choice import Overview
from dhpf.pipelines.gallery.folder import new_folder
from dhpf.pipelines.gallery.front_end import copy_front_end, write_data
from dhpf.pipelines.gallery.images import ShownImage, ShownImages, ShownWarp, write_warps
from dhpf.pipelines.gallery.rows import (
    EVALUATION_COLUMNS,
    EVALUATION_COLUMNS_OF_ALL,
    MATCH_COLUMNS,
    MATCH_COLUMNS_OF_ALL,
    evaluation_details,
    match_details,
    rounded,
)
from dhpf.pipelines.gallery.scores import PairScores, read_scores
from dhpf.pipelines.gallery.tables import ShownTable
from dhpf.pipelines.outputs.tables import layers_of_mask, points_of
from dhpf.pipelines.progress import CountedWork

PAGE_SIZE = 100
"""Pairs in one file."""

CODED = ("category", "status", "layers")
"""Columns of which the list holds each value once, and for a pair its number."""


@dataclass(frozen=True)
class Written:
    """What a gallery shows.

    Attributes:
        num_pairs: of all tables.
        num_shown, num_pictured: how many of them are listed, and how many have large pictures and a warp.
        num_images: images of these pairs.
        without_picture: remarks on the images that could not be read or have changed, by id.
    """

    num_pairs: int
    num_shown: int
    num_pictured: int
    num_images: int
    without_picture: Mapping[str, str]


def write_gallery(
    tables: Sequence[ShownTable], folder: Path, *, title: str, limit: int, num_pictured: int, code_version: str
) -> Written:
    """Writes a gallery into a folder, which appears complete or not at all.

    Args:
        title: of the page.
        limit: pairs of each table that are shown.
        num_pictured: pairs of each table that get large pictures and a warp.

    Raises:
        InputError: the folder is there already, or a table is damaged.
    """
    with new_folder(folder) as begun:
        copy_front_end(begun)
        images, warps = ShownImages(), list[ShownWarp]()
        lists = [
            _write_pairs(table, f"table-{number}", begun, images, warps, limit, num_pictured)
            for number, table in enumerate(tables)
        ]
        with CountedWork("writing pictures", "image", len(images)) as work:
            remarks = {image.image_id: image.remark for image in _counted(images, begun, work) if image.remark}
        with CountedWork("warping", "pair", len(warps)) as work:
            warped = set()
            for number in write_warps(warps, begun):
                warped.add(number)
                work.update(1)
        for number, listed in enumerate(lists):
            write_data(begun, f"table-{number}/list", listed.for_page(warped))
        entries = [listed.entry() for listed in lists]
        write_data(begun, "gallery", {"title": title, "tables": entries, "version": code_version})
    num_shown = sum(len(listed.numbers) for listed in lists)
    return Written(sum(x.overview.num_pairs for x in lists), num_shown, len(warped), len(images), remarks)


def _counted(images: ShownImages, folder: Path, work: CountedWork) -> Iterator[ShownImage]:
    for image in images.write(folder):
        work.update(1)
        yield image


class Codes:
    """Numbers for values that repeat, in the order in which they come."""

    def __init__(self) -> None:
        self._codes: dict[Any, int] = {}

    def of(self, value: Any) -> int:
        return self._codes.setdefault(value, len(self._codes))

    def values(self) -> list[Any]:
        return list(self._codes)


@dataclass
class PairList:
    """What the page's list holds of a table: columns of numbers, one entry for each pair that is shown."""

    table: ShownTable
    overview: Overview
    scores: PairScores | None
    numbers: list[int] = field(default_factory=list)
    score: list[float | None] = field(default_factory=list)
    columns: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in (*CODED, "source", "target")})
    codes: dict[str, Codes] = field(default_factory=lambda: {name: Codes() for name in CODED})
    images: dict[int, tuple[int, ShownImage]] = field(default_factory=dict)
    warps: list[int] = field(default_factory=list)

    def add(self, row: Mapping[str, Any], score: float | None, images: Sequence[ShownImage], warp: int) -> None:
        """Adds a pair.

        Args:
            images: source and target.
            warp: number of its warp; -1 for none.
        """
        self.numbers.append(row["number"])
        self.score.append(rounded(score, 4))
        for name in CODED:
            self.columns[name].append(self.codes[name].of(row[name]))
        for side, image in zip(("source", "target"), images, strict=True):
            place, _ = self.images.setdefault(image.file, (len(self.images), image))
            self.columns[side].append(place)
        self.warps.append(warp)

    def entry(self) -> dict[str, Any]:
        """The table among those of the gallery."""
        table = self.table
        return {"stage": table.stage, "on": table.on, "method": table.method, "pairs": self.overview.num_pairs}

    def for_page(self, warped: set[int]) -> dict[str, Any]:
        """The whole list.

        Args:
            warped: numbers of the warps that were written.
        """
        overview, scores = self.overview, self.scores
        masks = self.codes["layers"].values()
        used = [layer for use in overview.by_category.values() for layer in use.uses]
        return self.entry() | {
            "number": self.numbers,
            "score": self.score,
            "warp": [warp if warp in warped else -1 for warp in self.warps],
            **self.columns,
            "categories": self.codes["category"].values(),
            "statuses": self.codes["status"].values(),
            "layerSets": [layers_of_mask(mask) for mask in masks],
            "numLayers": max(used, default=-1) + 1,
            "images": [[i.file, i.image_id, i.remark, int(i.is_pictured)] for _, i in self.images.values()],
            "scoreName": "mean confidence" if scores is None else in_words(scores.metric or ""),
            "statusCounts": sorted(overview.statuses.items(), key=lambda item: -item[1]),
            "histogram": overview.histogram,
            "use": [
                [category, use.num_pairs, [[layer, use.uses[layer]] for layer in sorted(use.uses)]]
                for category, use in sorted(overview.by_category.items())
            ],
            "metrics": [] if scores is None else scores.for_page(),
            "facts": _facts(self.table),
        }


def _write_pairs(
    table: ShownTable,
    name: str,
    folder: Path,
    images: ShownImages,
    warps: list[ShownWarp],
    limit: int,
    num_pictured: int,
) -> PairList:
    """Writes the pairs of a table that are shown, and gives their list; their images and warps are still to come."""
    scores = None if table.scores is None else read_scores(table.scores)
    is_match = table.stage == "match"
    overview = Overview(limit, num_pictured)
    for row in _rows(table, MATCH_COLUMNS_OF_ALL if is_match else EVALUATION_COLUMNS_OF_ALL):
        overview.add(row, _score_of(row, scores))
    listed, pictured = overview.listed(), overview.pictured()
    found, page = PairList(table, overview, scores), list[dict[str, Any]]()
    wanted = np.array(sorted(listed), dtype=np.int64)
    for row in _rows(table, MATCH_COLUMNS if is_match else EVALUATION_COLUMNS, wanted):
        is_pictured = row["number"] in pictured
        sides = [
            images.add(table.store, row[s], row[f"{s}_sha256"], table.read, is_pictured=is_pictured)
            for s in ("source", "target")
        ]
        if is_pictured:
            warps.append(_warp(len(warps), row, sides, is_match))
        found.add(row, _score_of(row, scores), sides, len(warps) - 1 if is_pictured else -1)
        page.append(match_details(row) if is_match else evaluation_details(row, *_values(row, scores)))
        if len(page) == PAGE_SIZE or len(found.numbers) == len(wanted):
            write_data(folder, f"{name}/pairs-{(len(found.numbers) - 1) // PAGE_SIZE}", page)
            page = []
    return found


def _rows(table: ShownTable, columns: Sequence[str], wanted: Any = None) -> Iterator[dict[str, Any]]:
    """Rows of a table, one part in memory at a time; only those whose number is among `wanted`, if it is given."""
    for part in table.rows.tables(columns):
        chosen = part if wanted is None else part.filter(pa.array(np.isin(part["number"].to_numpy(), wanted)))
        for batch in chosen.to_batches(max_chunksize=PAGE_SIZE):
            yield from batch.to_pylist()


def _score_of(row: Mapping[str, Any], scores: PairScores | None) -> float | None:
    return row.get("score") if scores is None else scores.main.get(row["number"])


def _values(row: Mapping[str, Any], scores: PairScores | None) -> tuple[str | None, Sequence[tuple[str, float]]]:
    return (None, ()) if scores is None else (scores.metric, scores.of_pair(row["number"]))


def _warp(file: int, row: Mapping[str, Any], images: Sequence[ShownImage], is_match: bool) -> ShownWarp:
    names = ("source_points", "target_points") if is_match else ("matches_source", "matches_target")
    source, target = images
    points = [points_of(row[name] or []) for name in names]
    sizes = (tuple(row["source_size"]), tuple(row["target_size"]))
    return ShownWarp(file, source, target, sizes, *points)


def _facts(table: ShownTable) -> list[list[str]]:
    """What the run's record says, for people: name and value."""
    record = table.rows.record
    model = record.get("model")
    backbone = model["config"].get("backbone") if isinstance(model, Mapping) and "config" in model else None
    seconds = record.get("seconds")
    facts = {
        "backbone": backbone,
        "time": None if seconds is None else f"{seconds:,.0f} s",
        "matched by": f"dhpf {record.get('code_version')}",
        "output": str(table.rows.folder),
    }
    return [[name, str(value)] for name, value in facts.items() if value is not None]
