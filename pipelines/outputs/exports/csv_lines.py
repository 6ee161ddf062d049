"""A CSV file with a line for each match and each transferred point, and one for each pair that has none.

A text that a spreadsheet would take for a formula gets an apostrophe before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from dhpf.pipelines.outputs.exports.rows import Tally, lengths_of, numbers_of
from dhpf.pipelines.outputs.tables import layers_of_mask
from dhpf.results import Results

LINES = pa.schema(
    [
        ("number", pa.int64()),
        ("pair_id", pa.string()),
        ("category", pa.string()),
        ("source", pa.string()),
        ("target", pa.string()),
        ("status", pa.string()),
        ("layers", pa.string()),
        ("score", pa.float32()),
        ("kind", pa.string()),
        ("source_x", pa.float32()),
        ("source_y", pa.float32()),
        ("target_x", pa.float32()),
        ("target_y", pa.float32()),
        ("confidence", pa.float32()),
    ]
)
"""The columns: `layers` as numbers with spaces between, `kind` is "match", "given" or, for a pair without points, "".

A given point without a place in the target has no target_x and target_y.
"""

_OF_PAIR = ("number", "pair_id", "category", "source", "target", "status", "layers", "score")

_READ = (
    *_OF_PAIR,
    "source_points",
    "target_points",
    "confidence",
    "given_points",
    "transferred_points",
    "transferred_valid",
)

_FORMULA = r"\A([=+\-@\t\r\n])"


def write(found: Results, path: Path) -> Tally:
    """Writes the file.

    Raises:
        InputError: a part is damaged.
    """
    tally = Tally()
    with csv.CSVWriter(path, LINES) as file:
        for table in found.tables(_READ):
            file.write_table(_lines(table))
            for num_matches in lengths_of(table["source_points"].combine_chunks()).tolist():
                tally.add(num_matches)
    return tally


def _lines(table: pa.Table) -> pa.Table:
    columns = {name: table[name].combine_chunks() for name in _READ}
    columns |= {name: _harmless(column) for name, column in columns.items() if pa.types.is_string(column.type)}
    columns["layers"] = _as_text(columns["layers"])
    num_matches, num_given = (lengths_of(columns[name]) for name in ("source_points", "given_points"))
    rows = np.arange(table.num_rows)
    matches = _numbered(
        columns,
        np.repeat(rows, num_matches),
        "match",
        {
            **_x_and_y("source", columns["source_points"]),
            **_x_and_y("target", columns["target_points"]),
            "confidence": numbers_of(columns["confidence"]),
        },
    )
    is_valid = numbers_of(columns["transferred_valid"]).astype(bool)
    given = _numbered(
        columns,
        np.repeat(rows, num_given),
        "given",
        {
            **_x_and_y("source", columns["given_points"]),
            **{
                name: pa.array(values, mask=~is_valid)
                for name, values in _x_and_y("target", columns["transferred_points"]).items()
            },
        },
    )
    without = _numbered(columns, rows[(num_matches == 0) & (num_given == 0)], "", {})
    lines = pa.concat_tables([matches, given, without])
    return lines.take(np.argsort(lines["number"].to_numpy(), kind="stable"))


def _numbered(
    columns: Mapping[str, Any], rows: npt.NDArray[np.int64], kind: str, values: Mapping[str, Any]
) -> pa.Table:
    """A line for each of some rows, a row as often as it is named, with these values."""
    of_pair = {name: columns[name].take(pa.array(rows)) for name in _OF_PAIR}
    kinds = pa.array([kind]).take(pa.array(np.zeros(len(rows), np.int64)))
    nulls = {name: pa.nulls(len(rows), pa.float32()) for name in LINES.names[-5:]}
    return pa.table({**of_pair, "kind": kinds, **nulls, **values}, schema=LINES)


def _x_and_y(image: str, points: pa.Array) -> dict[str, npt.NDArray[np.float32]]:
    coordinates = numbers_of(points).reshape(-1, 2)
    return {f"{image}_x": coordinates[:, 0].copy(), f"{image}_y": coordinates[:, 1].copy()}


def _as_text(masks: pa.Array) -> pa.Array:
    """The layers of bit masks; many rows have the same."""
    encoded = masks.dictionary_encode()
    texts = [" ".join(map(str, layers_of_mask(mask))) for mask in encoded.dictionary.to_pylist()]
    return pa.array(texts, pa.string()).take(encoded.indices)


def _harmless(column: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(column, pattern=_FORMULA, replacement=r"'\1")
