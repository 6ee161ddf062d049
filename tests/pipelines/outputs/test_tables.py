from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from dhpf.errors import InputError
from dhpf.pairs.pair_list import REJECTS
from dhpf.pipelines.outputs.tables import (
    PREDICTIONS,
    SCORES,
    layer_mask,
    layers_of_mask,
    points_of,
    read_parquet,
    table_of,
)
from dhpf.pipelines.outputs.writers.parquet import ParquetWriter
from dhpf.records import Rejection


def test_rejections_are_rows(tmp_path: Path) -> None:
    table = table_of([asdict(Rejection("1", "a", "b", "why"))], REJECTS)
    (tmp_path / "r.parquet").write_bytes(ParquetWriter().to_bytes(table))
    assert read_parquet([tmp_path / "r.parquet"], REJECTS).to_pylist() == [
        {"pair_id": "1", "source": "a", "target": "b", "reason": "why"}
    ]
    assert read_parquet([], REJECTS).num_rows == 0


def prediction(number: int, box: list[float] | None) -> dict[str, object]:
    names = ("pair_id", "category", "source", "target", "status", "source_sha256", "target_sha256")
    common = dict.fromkeys(names, "x")
    sizes = {"source_size": [1, 2], "target_size": [3, 4]}
    points = {"source_keypoints": [[1.5, 2.0]], "target_keypoints": None, "valid": [True]}
    return common | sizes | points | {"number": number, "mirrored": False, "layers": 6, "target_box": box}


def test_absent_values_survive_beside_present_ones(tmp_path: Path) -> None:
    table = table_of([prediction(0, None), prediction(1, [1, 2, 3, 4]), prediction(2, None)], PREDICTIONS)
    (tmp_path / "p.parquet").write_bytes(ParquetWriter().to_bytes(table))
    rows = read_parquet([tmp_path / "p.parquet"], PREDICTIONS).to_pylist()
    assert [row["target_box"] for row in rows] == [None, [1, 2, 3, 4], None]
    assert rows[0]["source_keypoints"] == [[1.5, 2.0]]
    some = read_parquet([tmp_path / "p.parquet"], PREDICTIONS, ("number", "layers")).to_pylist()
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


def test_a_flipped_byte_is_never_good_data(tmp_path: Path) -> None:
    rows = [{"number": n, "pair_id": str(n), "category": "", "metric": "m", "value": n * 0.37} for n in range(500)]
    content = ParquetWriter().to_bytes(table_of(rows, SCORES))
    good = table_of(rows, SCORES)
    for place in range(50, len(content) - 400, 97):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        (tmp_path / "s.parquet").write_bytes(bytes(damaged))
        try:
            assert read_parquet([tmp_path / "s.parquet"], SCORES).equals(good)
        except InputError as error:
            assert "damaged" in str(error)


def test_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.parquet").write_bytes(ParquetWriter().to_bytes(table_of([], REJECTS)))
    with pytest.raises(InputError, match="expected"):
        read_parquet([tmp_path / "r.parquet"], SCORES)
