"""Reads many small files or objects: a bucket answers each slowly, but many at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from dhpf.storage.location import Location

AT_ONCE = 32
"""Reads that are under way at the same time."""

Item = TypeVar("Item")
Content = TypeVar("Content")


def read_ahead(read: Callable[[Item], Content], items: Iterable[Item]) -> Iterator[Content]:
    """`read(item)` of each item, in the order of the items, called in threads for the next ones already.

    Raises:
        Exception: what a call raises, at its item's place.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        under_way: deque[Future[Content]] = deque()
        for item in items:
            under_way.append(pool.submit(read, item))
            if len(under_way) > AT_ONCE:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def find_ahead(places: Iterable[Location]) -> Iterator[bytes | None]:
    """The content of each, in order, read ahead; None where there is nothing.

    Raises:
        InputError: the store does not answer.
    """
    return read_ahead(lambda place: place.find(), places)
