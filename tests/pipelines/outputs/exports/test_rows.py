from pathlib import Path

import numpy as np

import dhpf.results
from dhpf.pipelines.outputs.exports.rows import pair_rows
from tests.pipelines.outputs.exports.conftest import ROWS


def test_rows_are_those_of_the_table(run: Path) -> None:
    found = list(pair_rows(dhpf.results.open(run)))
    assert [(row.source, row.target, row.is_matched) for row in found] == [
        (row["source"], row["target"], row["status"] == "matched") for row in ROWS
    ]
    for row, expected in zip(found, ROWS, strict=True):
        points = np.float32(expected["source_points"] or np.empty((0, 2)))
        np.testing.assert_array_equal(row.source_points, points)
        np.testing.assert_array_equal(row.confidence, np.float32(expected["confidence"] or []))
        assert row.source_size.tolist() == expected["source_size"]
