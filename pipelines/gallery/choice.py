"""Chooses the pairs of a table that a gallery shows, and counts over all of its pairs; memory stays flat."""

from __future__ import annotations

import heapq
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from dhpf.pipelines.outputs.tables import MATCHED, layers_of_mask

NUM_BINS = 20
"""Of the histogram of scores, which lie in [0, 1]."""


class Smallest:
    """Keeps the numbers of the pairs with the smallest keys, at most `size` of them."""

    def __init__(self, size: int) -> None:
        self._size, self._heap = size, list[tuple[float, int]]()

    def add(self, key: float, number: int) -> None:
        entry = (-key, -number)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, entry)
        elif self._heap and entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)

    def numbers(self) -> list[int]:
        """Those kept, the smallest key first; equal keys rank by number."""
        return [-number for _, number in sorted(self._heap, reverse=True)]


class Sample:
    """A choice of pairs with scores: the worst, the best, and some at random, a third each.

    Which are taken at random depends on their numbers alone, so a gallery written again shows the same.
    """

    def __init__(self, size: int) -> None:
        self._orders = tuple(Smallest(size) for _ in range(3))

    def add(self, number: int, score: float) -> None:
        at_random = zlib.crc32(number.to_bytes(8, "little"))
        for order, key in zip(self._orders, (score, -score, at_random), strict=True):
            order.add(key, number)

    def numbers(self, count: int) -> set[int]:
        """So many of the pairs; the three orders take turns, so that of a smaller count all are in a larger one."""
        chosen: set[int] = set()
        for turn in zip(*(order.numbers() for order in self._orders), strict=True):
            for number in turn:
                if len(chosen) < count:
                    chosen.add(number)
        return chosen


@dataclass
class LayerUse:
    """How many pairs of a class there are, and how many of them use each layer."""

    num_pairs: int = 0
    uses: Counter[int] = field(default_factory=Counter)


class Overview:
    """What is known of a table once all its rows have been added.

    Args:
        limit: pairs that the gallery shows.
        num_pictured: pairs of them with large pictures.

    Attributes:
        num_pairs: rows of the table.
        statuses: how many pairs have each status.
        by_category: how often the pairs of each class use each layer.
        histogram: how many scores lie in each of NUM_BINS equal parts of [0, 1].
    """

    def __init__(self, limit: int, num_pictured: int) -> None:
        self.num_pairs = 0
        self.statuses: Counter[str] = Counter()
        self.by_category: defaultdict[str, LayerUse] = defaultdict(LayerUse)
        self.histogram = [0] * NUM_BINS
        self._limit, self._num_pictured = limit, num_pictured
        self._scored, self._unscored = Sample(limit), Smallest(limit)

    def add(self, row: Mapping[str, Any], score: float | None) -> None:
        """Adds a row, of which `number`, `category`, `status` and `layers` are looked at."""
        self.num_pairs += 1
        self.statuses[row["status"]] += 1
        if row["status"] == MATCHED:
            use = self.by_category[row["category"]]
            use.num_pairs += 1
            use.uses.update(layers_of_mask(row["layers"]))
        number = int(row["number"])
        if score is None or not isfinite(score):
            self._unscored.add(number, number)
            return
        self.histogram[min(int(max(score, 0) * NUM_BINS), NUM_BINS - 1)] += 1
        self._scored.add(number, score)

    def listed(self) -> set[int]:
        """The numbers of the pairs to show, as many as the limit; up to a quarter are without a score, or as many as
        there is room for."""
        room = max(self._limit // 4, self._limit - len(self._scored.numbers(self._limit)))
        unscored = self._unscored.numbers()[:room]
        return self._scored.numbers(self._limit - len(unscored)).union(unscored)

    def pictured(self) -> set[int]:
        """The numbers of the pairs that get large pictures, if they are shown."""
        return self._scored.numbers(self._num_pictured)
