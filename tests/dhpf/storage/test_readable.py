from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from dhpf.errors import InputError
from dhpf.storage import Location, location_of
from dhpf.storage.readable import ReadableLocation

if TYPE_CHECKING:
    from infra.s3_server import Bucket


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket) -> Location:
    return location_of(str(tmp_path) if request.param == "folder" else bucket.uri("x"))


def test_a_table_is_read_where_it_lies(place: Location) -> None:
    table = pa.table({"number": range(1000)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table, max_chunksize=100)
    (place / "x.arrow").put(sink.getvalue().to_pybytes())
    reader = pa.ipc.open_file(pa.PythonFile(ReadableLocation(place / "x.arrow"), mode="r"))
    assert reader.num_record_batches == 10 and reader.get_batch(7).to_pydict() == {"number": list(range(700, 800))}


def test_it_is_read_from_any_place_to_its_end(place: Location) -> None:
    (place / "x").put(bytes(range(100)))
    file = ReadableLocation(place / "x")
    assert file.readable() and file.seekable() and file.read(3) == bytes(range(3)) and file.tell() == 3
    assert file.seek(2, io.SEEK_CUR) == 5 and file.read(1) == bytes([5])
    assert file.seek(-10, io.SEEK_END) == 90 and file.read() == bytes(range(90, 100)) and file.read(5) == b""
    assert file.seek(50) == 50 and file.read(1) == bytes([50])


def test_what_is_not_there_is_said(place: Location) -> None:
    with pytest.raises(InputError, match="gone.*: is not there"):
        ReadableLocation(place / "gone")
