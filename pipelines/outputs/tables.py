"""The schemas of the tables that stages write, and how parts of a table are read.

Points are lists of [x, y] in the original image's pixels. `status` is "matched", or says why the pair could not be
matched; then the other columns are empty. `layers` is a bit mask: bit l stands for hyperpixel layer l (see
`layers_of_mask`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dhpf.errors import InputError
from dhpf.manifest import REPAIR, Damaged
from dhpf.records import Points

MATCHED = "matched"

_POINTS = pa.list_(pa.list_(pa.float32(), 2))

NUMBER = pa.field(
    "number",
    pa.int64(),
    nullable=False,
    metadata={
        "description": "Running number of the pair, from 0: of a pair list its row, of a shard set its place in the "
        "shards, of any other choice of pairs its place in the plan. Two tables of one choice agree where they were "
        "planned with the same max_images and max_pairs; source and target say always which pair a row is."
    },
)
"""The column that joins tables of the same pairs; `pair_id` of a folder's pair is it plus 1, in nine digits."""

_PAIR = [
    NUMBER,
    pa.field("pair_id", pa.string(), nullable=False),
    pa.field("category", pa.string(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("target", pa.string(), nullable=False),
    pa.field("status", pa.string(), nullable=False),
    pa.field("source_sha256", pa.string(), nullable=False),
    pa.field("target_sha256", pa.string(), nullable=False),
    pa.field("mirrored", pa.bool_(), nullable=False),
    pa.field("source_size", pa.list_(pa.int32(), 2), nullable=False),
    pa.field("target_size", pa.list_(pa.int32(), 2), nullable=False),
    pa.field("layers", pa.int64(), nullable=False),
]

PREDICTIONS = pa.schema(
    [
        *_PAIR,
        ("seconds", pa.float32()),
        ("source_keypoints", _POINTS),
        ("target_keypoints", _POINTS),
        ("predicted_keypoints", _POINTS),
        ("valid", pa.list_(pa.bool_())),
        ("confidence", pa.list_(pa.float32())),
        ("target_box", pa.list_(pa.float32())),
        ("source_outline", _POINTS),
        ("target_outline", _POINTS),
        ("predicted_outline", _POINTS),
        ("matches_source", _POINTS),
        ("matches_target", _POINTS),
    ]
)
"""The predictions of a method for pairs with ground truth; `seconds` is the pair's share of its block's matching time.

`matches_*` are the pair's best mutual matches, for pictures. A keypoint that is not `valid` has no prediction.
"""

SCORES = pa.schema(
    [
        ("number", pa.int64()),
        ("pair_id", pa.string()),
        ("category", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("num_correct", pa.int32()),
        ("num_keypoints", pa.int32()),
    ]
)
"""One row per pair and metric, such as "PCK@0.1 image"; counts are of keypoints, null for mask metrics."""

CORRESPONDENCES = pa.schema(
    [
        *_PAIR,
        pa.field("score", pa.float32()),
        ("source_points", _POINTS),
        ("target_points", _POINTS),
        ("confidence", pa.list_(pa.float32())),
        ("given_points", _POINTS),
        ("transferred_points", _POINTS),
        ("transferred_valid", pa.list_(pa.bool_())),
        ("flow", _POINTS),
        pa.field("model", pa.string(), nullable=False),
        pa.field("code_version", pa.string(), nullable=False),
    ]
)
"""Matches of a collection's pairs: mutual best points, the most confident first; `score` is their mean confidence.

`given_points` came with the pair and are transferred; `flow`, if asked for, is the target point of each of the 60 x 60
source cells, row by row. `model` is models:/NAME/VERSION of the registry, or the sha256 of the checkpoint or the
configuration.
"""

STAMPS = pa.schema([pa.field("size", pa.int64(), nullable=False), pa.field("version", pa.int64(), nullable=False)])
"""The stamps (dhpf.regular_files.Stamp) of the images that an output was made of, in the order of its plan."""

LAYER_SETS = pa.schema(
    [
        pa.field("num_layers", pa.int32(), nullable=False),
        pa.field("layers", pa.int64(), nullable=False),
        pa.field("pck", pa.float64(), nullable=False),
        pa.field("is_kept", pa.bool_(), nullable=False),
    ]
)
"""Sets of layers that a search scored, those of one size per part, with their mean PCK over pairs.

Those with `is_kept` are the best of their size, which the search extended.
"""


def layer_mask(layers: Iterable[int]) -> int:
    """Layer numbers as a bit mask."""
    return sum(1 << layer for layer in layers)


def layers_of_mask(mask: int) -> list[int]:
    """The layer numbers of a bit mask, ascending."""
    return [layer for layer in range(mask.bit_length()) if mask >> layer & 1]


def points_of(value: Any) -> Points:
    """The points of one row's column, (N, 2)."""
    return np.array(value, dtype=np.float32).reshape(-1, 2)


def table_of(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of a schema."""
    return pa.Table.from_pylist(list(rows), schema=schema)


def read_parquet(
    parts: Iterable[bytes], schema: pa.Schema, columns: Sequence[str] | None = None, *, where: object
) -> pa.Table:
    """Reads parts of one table, or some of its columns, checksums verified.

    Args:
        parts: the content of each part's file.
        where: the table, as an error names it.

    Raises:
        Damaged: a part is not as it was written.
        InputError: it is of another schema.
    """
    tables = []
    wanted = columns and list(columns)
    for part in parts:
        try:
            table = pq.read_table(pa.BufferReader(part), columns=wanted, page_checksum_verification=True)
        except (pa.ArrowInvalid, OSError) as error:
            raise Damaged(f"table {where}: damaged ({error}); {REPAIR}") from error
        if table.schema.names != list(columns or schema.names):
            raise InputError(f"table {where}: columns {table.schema.names}, expected {columns or schema.names}")
        tables.append(table)
    return pa.concat_tables(tables) if tables else schema.empty_table().select(columns or schema.names)


RANKS = ("best", "median", "worst")
"""Which pairs of a table are shown in pictures, by their score."""


def ranked_pairs(table: pa.Table) -> dict[str, Any]:
    """The pairs of a part of CORRESPONDENCES with the best, the median and the worst score, for a task's info.

    Returns:
        "num_scored", how many pairs have a score; and where that is not 0, by the three names, [score, number].
    """
    columns = table["score"].to_pylist(), table["number"].to_pylist()
    scores = {number: score for score, number in zip(*columns, strict=True) if score is not None and isfinite(score)}
    chosen = best_median_worst(scores)
    return {"num_scored": len(scores)} | {name: [scores[number], number] for name, number in chosen.items()}


def best_median_worst(values: Mapping[int, float]) -> dict[str, int]:
    """The numbers of the pairs with the highest, the median and the lowest value; equal values rank by number."""
    if not values:
        return {}
    ordered = sorted(values, key=lambda number: (-values[number], number))
    return dict(zip(RANKS, (ordered[0], ordered[len(ordered) // 2], ordered[-1]), strict=True))
