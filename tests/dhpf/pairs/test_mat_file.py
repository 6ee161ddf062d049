"""The reader of MATLAB files agrees with scipy on what it reads, and ends in a sentence on everything else."""

from __future__ import annotations

import io
import random
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from dhpf.pairs.mat_file import MAX_BYTES, read_array

POINTS = [[1.5, 2], [np.nan, 3], [-4, 1e30]]


def written(values: Any, *, compressed: bool = False, name: str = "kps") -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, {"before": "text", name: values, "after": [1]}, do_compression=compressed)
    return file.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_an_array_of_any_numbers_is_read(kind: str, compressed: bool) -> None:
    values = np.array([[1, 2], [3, 4], [5, 6]], kind)
    assert read_array(written(values, compressed=compressed), "kps").tolist() == values.tolist()


def test_what_is_no_number_stays_so() -> None:
    np.testing.assert_array_equal(read_array(written(POINTS), "kps"), POINTS)
    assert read_array(written(np.empty((0, 2))), "kps").shape == (0, 2)


def test_the_benchmarks_annotations_are_read_as_scipy_reads_them(data_folder: Path) -> None:
    files = list((data_folder / "PF-PASCAL" / "Annotations").rglob("*.mat"))
    assert files
    for file in files:
        np.testing.assert_array_equal(read_array(file.read_bytes(), "kps"), scipy.io.loadmat(file)["kps"])


def big_endian(flags: int = 6) -> bytes:
    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)

    array = element(6, struct.pack(">II", flags, 0)) + element(5, struct.pack(">ii", 1, 2)) + element(1, b"kps")
    array += element(9, struct.pack(">dd", 7, 8))
    return bytes(124) + struct.pack(">H", 0x0100) + b"MI" + element(14, array)


def test_the_other_byte_order() -> None:
    assert read_array(big_endian(), "kps").tolist() == [[7, 8]]


def bomb() -> bytes:
    packed = zlib.compress(bytes(MAX_BYTES + 1), 9)
    return written([1])[:128] + struct.pack("<II", 15, len(packed)) + packed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a MATLAB file of version 5"),
        (b"\x89HDF" + bytes(600), "save it with -v7"),
        (written(POINTS, name="points"), "holds no array 'kps'"),
        (written("text"), "no real array of numbers"),
        (written(np.array([[1j, 2]])), "no real array of numbers"),
        (big_endian(flags=0x0806), "no real array of numbers"),  # complex, by its flag alone
        (written({"x": 1}), "no real array of numbers"),
        (written(POINTS)[:-150], "longer than the file"),
        (bytes(MAX_BYTES + 1), "more than"),
        (bomb(), "more than .* when decompressed"),
    ],
)
def test_anything_else_is_one_sentence(content: bytes, message: str) -> None:
    started = time.process_time()
    with pytest.raises(ValueError, match=message):
        read_array(content, "kps")
    assert time.process_time() - started < 2


def test_a_file_that_ended_a_process_is_refused(failed_inputs: Path) -> None:
    with pytest.raises(ValueError, match="type 32515"):
        read_array((failed_inputs / "segfault.mat").read_bytes(), "kps")


@pytest.mark.parametrize("compressed", [False, True])
def test_any_damage_gives_numbers_or_a_sentence(compressed: bool) -> None:
    content, chance = written(POINTS, compressed=compressed), random.Random(0)
    outcomes = set()
    for _ in range(3000):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 6)):
            damaged[chance.randrange(100, len(damaged))] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
        try:
            outcomes.add(type(read_array(bytes(damaged[: chance.randrange(100, 2 * len(damaged))]), "kps")))
        except ValueError:
            outcomes.add(ValueError)
    assert outcomes == {np.ndarray, ValueError}
