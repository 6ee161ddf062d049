from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dhpf.results
from dhpf.errors import InputError
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.outputs.writers import table_file
from dhpf.storage import location_of

if TYPE_CHECKING:
    from infra.s3_server import Bucket


def complete(folder: Path | str, name: str = "part") -> StageOutput:
    """An output of two blocks with two rows each and one rejected row, and a file that an interrupted run left."""
    root = location_of(folder)
    output = StageOutput(root)
    output.plan({"stage": "match", "tasks": ["block-000000", "block-000001", "rejects"]})
    for task, numbers in (("block-000000", [0, 1]), ("block-000001", [2, 3])):
        table = pa.table({"number": numbers, "source_points": [[[1.0, 2.0]], None]})
        output.commit(task, table_file(name, table), {"num_pairs": 2})
    output.commit("rejects", table_file("rejects", pa.table({"reason": ["no such image"]})), {})
    output.finish({"stage": "match", "num_pairs": 4})
    stray = root / "data" / "block-000000" / "lost" / "part.parquet"
    stray.put(next(iter(table_file(name, pa.table({"number": [9]})).values())))
    return output


def test_the_table_is_read_as_arrow_as_pandas_and_row_by_row(tmp_path: Path) -> None:
    complete(tmp_path / "photos")
    found = dhpf.results.open(tmp_path / "photos")
    assert found.table()["number"].to_pylist() == [0, 1, 2, 3]
    assert [table.num_rows for table in found.tables()] == [2, 2]
    frame = found.to_pandas()
    assert isinstance(frame, pd.DataFrame) and list(frame["number"]) == [0, 1, 2, 3]
    assert [row["number"] for row in found] == [0, 1, 2, 3]
    assert next(iter(found))["source_points"] == [[1.0, 2.0]]
    assert found.record["num_pairs"] == 4


def test_some_columns_alone(tmp_path: Path) -> None:
    complete(tmp_path)
    found = dhpf.results.open(tmp_path)
    assert found.table(["number"]).column_names == ["number"]
    with pytest.raises(InputError, match="column 'score': not in the table; it has number, source_points"):
        found.table(["score"])


def test_rejected_rows_stand_apart(tmp_path: Path) -> None:
    complete(tmp_path)
    rejected = dhpf.results.open(tmp_path).rejected()
    assert rejected is not None and rejected.to_pylist() == [{"reason": "no such image"}]


def test_a_folder_above_will_do_if_there_is_one_table_below(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no complete output with a table"):
        dhpf.results.open(tmp_path)
    complete(tmp_path / "match" / "photos")
    assert dhpf.results.open(tmp_path).folder == location_of(tmp_path / "match" / "photos")
    complete(tmp_path / "evaluate" / "a" / "scores", "scores")
    with pytest.raises(InputError, match="several tables; open one of evaluate/a/scores, match/photos"):
        dhpf.results.open(tmp_path)


def test_what_is_not_complete_is_not_opened(tmp_path: Path) -> None:
    output = StageOutput(tmp_path)
    output.plan({"stage": "match", "tasks": ["block-000000"]})
    output.commit("block-000000", table_file("part", pa.table({"number": [0]})), {})
    with pytest.raises(InputError, match="no complete output"):
        dhpf.results.open(tmp_path)


@pytest.mark.parametrize("harm", ["shorter", "flipped", "gone"])
def test_a_part_that_is_not_as_it_was_written_is_refused(tmp_path: Path, harm: str) -> None:
    output = complete(tmp_path)
    part = output.location(output.committed()["block-000001"], "part.parquet")
    content = bytearray(part.read())
    content[len(content) // 2] ^= 1
    part.put(bytes(content[:-1] if harm == "shorter" else content))
    if harm == "gone":
        part.delete()
    found = dhpf.results.open(tmp_path)
    assert next(found.tables()).num_rows == 2, "the first part is as it was"
    with pytest.raises(InputError, match="part.parquet: (damaged|gone|[0-9]+ bytes instead)"):
        found.table()


def test_the_line_that_the_summary_prints_reads_the_table(tmp_path: Path) -> None:
    complete(tmp_path / "photos")
    line = dhpf.results.reading_line(location_of(tmp_path / "photos"))
    told = subprocess.run(
        [sys.executable, "-c", line.replace("; ", "; print(", 1) + ")"], capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    assert "source_points" in told.stdout
    with pytest.raises((pa.ArrowInvalid, OSError)):
        pq.read_table(tmp_path / "photos")  # why it is printed: the manifest stands among the parts


def test_results_in_a_bucket_are_opened_by_their_uri(bucket: Bucket) -> None:
    complete(bucket.uri("work/match/photos"))
    for place in ("work/match/photos", "work"):
        assert dhpf.results.open(bucket.uri(place)).table()["number"].to_pylist() == [0, 1, 2, 3]
