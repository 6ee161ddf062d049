from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest

from dhpf.errors import InputError
from dhpf.pairs.pair_list import REJECTS
from dhpf.pipelines.outputs.tables import (
    PREDICTIONS,
    SCORES,
    best_median_worst,
    layer_mask,
    layers_of_mask,
    points_of,
    ranked_pairs,
    read_parquet,
    table_of,
)
from dhpf.pipelines.outputs.writers.parquet import ParquetWriter
from dhpf.records import Rejection


def test_rejections_are_rows() -> None:
    table = table_of([asdict(Rejection("1", "a", "b", "why"))], REJECTS)
    assert read_parquet([ParquetWriter().to_bytes(table)], REJECTS, where="w").to_pylist() == [
        {"pair_id": "1", "source": "a", "target": "b", "reason": "why"}
    ]
    assert read_parquet([], REJECTS, where="w").num_rows == 0


def prediction(number: int, box: list[float] | None) -> dict[str, object]:
    names = ("pair_id", "category", "source", "target", "status", "source_sha256", "target_sha256")
    common = dict.fromkeys(names, "x")
    sizes = {"source_size": [1, 2], "target_size": [3, 4]}
    points = {"source_keypoints": [[1.5, 2.0]], "target_keypoints": None, "valid": [True]}
    return common | sizes | points | {"number": number, "mirrored": False, "layers": 6, "target_box": box}


def test_absent_values_survive_beside_present_ones() -> None:
    table = table_of([prediction(0, None), prediction(1, [1, 2, 3, 4]), prediction(2, None)], PREDICTIONS)
    parts = [ParquetWriter().to_bytes(table)]
    rows = read_parquet(parts, PREDICTIONS, where="w").to_pylist()
    assert [row["target_box"] for row in rows] == [None, [1, 2, 3, 4], None]
    assert rows[0]["source_keypoints"] == [[1.5, 2.0]]
    some = read_parquet(parts, PREDICTIONS, ("number", "layers"), where="w").to_pylist()
    assert some[1] == {"number": 1, "layers": 6}


def test_points_of_a_row_are_an_array() -> None:
    [row] = table_of([prediction(0, None)], PREDICTIONS).to_pylist()
    points = points_of(row["source_keypoints"])
    assert points.tolist() == [[1.5, 2.0]] and points.dtype == np.float32
    assert points_of([]).shape == (0, 2), "no point has two coordinates, too"


def test_layers_are_a_bit_mask() -> None:
    assert layer_mask([1, 2]) == 6
    assert layers_of_mask(layer_mask([0, 5, 33])) == [0, 5, 33]
    assert layers_of_mask(layer_mask([])) == []


def test_the_same_rows_give_the_same_bytes() -> None:
    tables = [table_of([prediction(0, None)], PREDICTIONS) for _ in range(2)]
    assert ParquetWriter().to_bytes(tables[0]) == ParquetWriter().to_bytes(tables[1])


def test_a_flipped_byte_is_never_good_data() -> None:
    rows = [{"number": n, "pair_id": str(n), "category": "", "metric": "m", "value": n * 0.37} for n in range(500)]
    content = ParquetWriter().to_bytes(table_of(rows, SCORES))
    good = table_of(rows, SCORES)
    for place in range(50, len(content) - 400, 97):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        try:
            assert read_parquet([bytes(damaged)], SCORES, where="w").equals(good)
        except InputError as error:
            assert "table w: damaged" in str(error)


def test_another_table_is_refused() -> None:
    with pytest.raises(InputError, match="table w: columns .*expected"):
        read_parquet([ParquetWriter().to_bytes(table_of([], REJECTS))], SCORES, where="w")


def test_the_best_the_median_and_the_worst_are_chosen_by_value_then_number() -> None:
    assert best_median_worst({}) == {}
    assert best_median_worst({7: 0.5}) == {"best": 7, "median": 7, "worst": 7}
    assert best_median_worst({0: 0.1, 1: 0.9, 2: 0.9, 3: 0.4}) == {"best": 1, "median": 3, "worst": 0}


def test_of_a_part_the_best_the_median_and_the_worst_pair_are_named() -> None:
    columns = {"number": [7, 8, 9, 10, 11], "score": [0.5, None, 0.25, float("nan"), 0.75]}
    ranked = {"num_scored": 3, "best": [0.75, 11], "median": [0.5, 7], "worst": [0.25, 9]}
    assert ranked_pairs(pa.table(columns)) == ranked
    assert ranked_pairs(pa.table({"number": [1], "score": pa.array([None], pa.float32())})) == {"num_scored": 0}
