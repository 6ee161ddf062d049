"""Reads one array of numbers from an untrusted MATLAB file of version 5 (what MATLAB writes with -v6 and -v7).

Only what keypoint files hold is read: real arrays of numbers, plain or compressed. The format is MathWorks' "MAT-File
Format", level 5: a header of 128 bytes, then elements of a type, a size and data that fills up to eight bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_BYTES = 16_000_000
"""Larger files are refused, and no more is decompressed: a keypoint file holds less than a thousandth."""

_HEADER_BYTES = 128
_INT32, _UINT32, _MATRIX, _COMPRESSED = 5, 6, 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Numpy's names of the types that an element's numbers may have, without the byte order."""

_NUMERIC_CLASSES = range(6, 16)
_COMPLEX = 0x0800


def read_array(content: bytes, name: str) -> NDArray[np.float64]:
    """The array with this name.

    Raises:
        ValueError: not such a file, damaged, or without a real array of numbers of this name.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(f"{len(content)} bytes, more than {MAX_BYTES} are not read")
    order = {b"IM": "<", b"MI": ">"}.get(content[126:_HEADER_BYTES])
    if order is None:
        raise ValueError("not a MATLAB file of version 5; save it with -v7")
    try:
        for element in _elements(content[_HEADER_BYTES:], order):
            found = _array(element, name, order)
            if found is not None:
                return found
    except (struct.error, zlib.error) as error:
        raise ValueError(f"damaged ({error})") from error
    raise ValueError(f"holds no array {name!r}")


@dataclass(frozen=True)
class _Element:
    kind: int
    data: bytes

    def numbers(self, order: str) -> NDArray[np.generic]:
        if self.kind not in _NUMBERS:
            raise ValueError(f"an element of type {self.kind} where numbers belong")
        return np.frombuffer(self.data, order + _NUMBERS[self.kind])


def _elements(data: bytes, order: str) -> Iterator[_Element]:
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:  # a small element: its size stands beside its type, and up to four bytes behind it
            kind, size, begin, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            begin = at + 8
            end = begin + size + (0 if kind == _COMPRESSED else -size % 8)
        if begin + size > len(data) or (begin == at + 4 and size > 4):
            raise ValueError("damaged (an element is longer than the file)")
        yield _Element(kind, data[begin : begin + size])
        at = end


def _array(element: _Element, name: str, order: str) -> NDArray[np.float64] | None:
    """The element's array if it has this name."""
    if element.kind == _COMPRESSED:
        inflate = zlib.decompressobj()
        data = inflate.decompress(element.data, MAX_BYTES)
        if inflate.unconsumed_tail:
            raise ValueError(f"more than {MAX_BYTES} bytes when decompressed")
        arrays = (_matrix(inner, name, order) for inner in _elements(data, order))
        return next((array for array in arrays if array is not None), None)
    return _matrix(element, name, order)


def _matrix(element: _Element, name: str, order: str) -> NDArray[np.float64] | None:
    if element.kind != _MATRIX:
        return None
    flags, dimensions, label, *parts = _elements(element.data, order)
    if (flags.kind, dimensions.kind) != (_UINT32, _INT32) or not flags.data:
        raise ValueError("damaged (an array without its class or its shape)")
    if label.data.decode("latin-1") != name:
        return None
    what = int(flags.numbers(order)[0])
    if what & 0xFF not in _NUMERIC_CLASSES or what & _COMPLEX or len(parts) != 1:
        raise ValueError(f"{name!r} is no real array of numbers")
    shape = [int(side) for side in dimensions.numbers(order)]
    values = parts[0].numbers(order).astype(np.float64)
    if min(shape, default=-1) < 0 or np.prod([float(side) for side in shape]) != len(values):
        raise ValueError(f"{name!r} has the shape {tuple(shape)}, but {len(values)} numbers")
    return values.reshape(shape, order="F")
