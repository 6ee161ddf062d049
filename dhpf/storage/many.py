"""Reads many small files or objects: several at once, because most of the time goes by in waiting for the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from dhpf.storage.location import Location

AT_ONCE = 32
"""Files or objects that are asked for at the same time."""

_BEFOREHAND = 1000
"""Contents that may be held before they are taken."""


def find_all(places: Iterable[Location]) -> Iterator[bytes | None]:
    """The content of each, in order; None where there is nothing.

    Raises:
        InputError: the store does not answer.
    """
    waiting = iter(places)
    with ThreadPoolExecutor(AT_ONCE) as executor:
        while some := list(islice(waiting, _BEFOREHAND)):
            yield from executor.map(lambda place: place.find(), some)
