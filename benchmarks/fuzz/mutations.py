"""Changes bytes of real files as damage and malice do: bits, numbers, pieces that are gone, doubled, or another's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

MAX_BYTES = 200_000
"""No input is longer."""

_NUMBERS = [b"\x00", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\x7f\xff\xff\xff"]
_WORDS = [b"NaN", b"Infinity", b"-1", b"1e999", b"9" * 400, b"null", b"true", b"[]", b"{}", b'""', b"[[1,2,3]]", b"\n"]
_WORDS += [
    b"../../etc/passwd",
    b"\x00",
    b"\xed\xa0\x80",
    b"%00",
    b"*a",
    b"&a ",
    b"!!python/object:os.system",
    b";",
    b",",
]
_WORDS += [b"[" * 2000, b"{" * 2000, b"s3://k:s@b/x", b"x" * 5000, b"\xef\xbb\xbf", b"0x10", b"1_0", b"\xe2\x80\xae"]

Mutation = Callable[[Random, bytearray, Sequence[bytes]], None]


def _flip(random: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _set(random: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    place, new = random.randrange(len(data)), random.choice(_NUMBERS)
    data[place : place + len(new)] = new


def _insert(random: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    place = random.randrange(len(data) + 1)
    data[place:place] = random.choice(_WORDS)


def _replace(random: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    begin, end = _piece(random, data)
    data[begin:end] = random.choice(_WORDS)


def _remove(random: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    begin, end = _piece(random, data)
    del data[begin:end]


def _double(random: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    begin, end = _piece(random, data)
    data[begin:begin] = data[begin:end] * random.choice((1, 1, 2, 50))


def _cut(random: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    del data[random.randrange(len(data)) :]


def _splice(random: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    other = random.choice(corpus)
    data[random.randrange(len(data)) :] = other[random.randrange(len(other) + 1) :]


MUTATIONS: tuple[Mutation, ...] = (_flip, _flip, _set, _set, _insert, _replace, _remove, _double, _cut, _splice)


def _piece(random: Random, data: bytearray) -> tuple[int, int]:
    begin = random.randrange(len(data))
    return begin, min(len(data), begin + int(random.expovariate(1 / 12)) + 1)


def mutated(random: Random, corpus: Sequence[bytes]) -> bytes:
    """A file of the corpus with one to five mutations."""
    data = bytearray(random.choice(corpus))
    for _ in range(random.choice((1, 1, 1, 2, 3, 5))):
        if data:
            random.choice(MUTATIONS)(random, data, corpus)
    return bytes(data[:MAX_BYTES])
