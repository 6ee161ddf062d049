import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dhpf.errors import InputError
from dhpf.pipelines.outputs.writers import WRITERS, table_file
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


def test_a_file_is_named_by_its_format() -> None:
    assert table_file("part", TABLE) == {"part.parquet": WRITERS["parquet"].to_bytes(TABLE)}
    with pytest.raises(InputError, match="format: .*'parkett'.*parquet"):
        table_file("part", TABLE, "parkett")
