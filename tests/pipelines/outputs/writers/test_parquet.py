import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dhpf.results
from dhpf.errors import InputError
from dhpf.pipelines.outputs.store import REJECTS_TASK
from dhpf.pipelines.outputs.writers import PART, WRITERS, file_name, table_file
from dhpf.pipelines.outputs.writers.parquet import ParquetWriter

TABLE = pa.table({"number": [1, 2], "points": [[[1.5, 2.0]], None]})


def test_a_table_comes_back_as_it_was_written() -> None:
    content = ParquetWriter().to_bytes(TABLE)
    assert pq.read_table(io.BytesIO(content)) == TABLE
    assert ParquetWriter().to_bytes(TABLE) == content, "the same table, the same bytes"


def test_a_flipped_byte_is_noticed() -> None:
    content = bytearray(ParquetWriter().to_bytes(pa.table({"x": list(range(5000))})))
    content[len(content) // 3] ^= 1
    with pytest.raises((OSError, pa.ArrowInvalid)):
        pq.read_table(io.BytesIO(bytes(content)), page_checksum_verification=True)


def test_results_are_opened_by_the_names_that_they_are_written_under() -> None:
    assert (file_name(PART), file_name("scores")) == dhpf.results.TABLE_NAMES
    assert file_name(REJECTS_TASK) == dhpf.results.REJECTS


def test_a_file_is_named_by_its_format() -> None:
    assert file_name(PART) == "part.parquet"
    with pytest.raises(InputError, match="format: .*'parkett'.*parquet"):
        file_name(PART, "parkett")
    assert table_file("part", TABLE) == {"part.parquet": WRITERS["parquet"].to_bytes(TABLE)}
    with pytest.raises(InputError, match="format: .*'parkett'.*parquet"):
        table_file("part", TABLE, "parkett")
