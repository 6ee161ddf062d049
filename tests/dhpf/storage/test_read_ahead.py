from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dhpf.storage import location_of
from dhpf.storage.read_ahead import AT_ONCE, find_ahead, read_ahead
from infra.s3_server import Bucket


def test_contents_come_in_the_order_of_the_items() -> None:
    def read(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * number

    assert list(read_ahead(read, range(200))) == [number * number for number in range(200)]


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_many_objects_and_one_that_is_not_there(kind: str, tmp_path: Path, bucket: Bucket) -> None:
    root = location_of(str(tmp_path / "many") if kind == "folder" else bucket.uri("many"))
    for number in range(50):
        (root / f"{number}").put(b"%d" % number)
    found = list(find_ahead(root / f"{number}" for number in range(51)))
    assert found == [b"%d" % number for number in range(50)] + [None]
    assert list(find_ahead([])) == []


def test_reads_are_under_way_together() -> None:
    together = threading.Barrier(AT_ONCE, timeout=20)
    assert list(read_ahead(lambda _: together.wait() >= 0, range(AT_ONCE))) == [True] * AT_ONCE


def test_no_more_items_are_taken_than_are_read() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    contents = read_ahead(lambda number: number, items())
    assert list(itertools.islice(contents, 5)) == [1, 2, 3, 4, 5]
    assert taken <= AT_ONCE + 5
    contents.close()  # type: ignore[attr-defined]


def test_an_error_comes_at_its_place() -> None:
    contents = read_ahead(lambda number: 10 // number, [1, 0, 5])
    assert next(contents) == 10
    with pytest.raises(ZeroDivisionError):
        next(contents)
