"""Orders images so that those that are paired with each other stand close together."""

from __future__ import annotations

import heapq

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

Positions = NDArray[np.int32]


class PairSample:
    """A random sample, of limited size, of pairs that stream by: those whose numbers have the smallest hashes.

    The same numbered pairs give the same sample, however they are cut into batches.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._threshold = np.uint64(2**64 - 1)
        self._kept: list[tuple[NDArray[np.uint64], Positions, Positions]] = []
        self._num_kept = 0

    def add(self, numbers: NDArray[np.int64], sources: Positions, targets: Positions) -> None:
        """Offers pairs, each with a number that no other pair has."""
        hashes = _hashes(numbers)
        chosen = hashes <= self._threshold
        self._kept.append((hashes[chosen], sources[chosen], targets[chosen]))
        self._num_kept += int(chosen.sum())
        if self._num_kept > 2 * self._size:
            self._shrink()

    def pairs(self) -> tuple[Positions, Positions]:
        """Sources and targets of the sample, at most `size` of each."""
        if self._num_kept > self._size:
            self._shrink()
        nothing = np.empty(0, dtype=np.int32)
        return (
            np.concatenate([nothing, *(sources for _, sources, _ in self._kept)]),
            np.concatenate([nothing, *(targets for _, _, targets in self._kept)]),
        )

    def _shrink(self) -> None:
        hashes, sources, targets = (np.concatenate(column) for column in zip(*self._kept, strict=True))
        smallest = np.argpartition(hashes, self._size - 1)[: self._size]
        smallest.sort()
        self._kept = [(hashes[smallest], sources[smallest], targets[smallest])]
        self._num_kept = self._size
        self._threshold = hashes[smallest].max()


def order_images(num_images: int, sources: Positions, targets: Positions) -> Positions:
    """(num_images,) all images, such that pairs join images close to each other; those in no pair come last.

    Images are placed one by one; next comes the image of whose partners the largest share is placed already. So a
    cluster is finished before the next begins, even where a few pairs join them. An order by breadth (Cuthill-McKee)
    would mix such clusters.
    """
    ends = (np.concatenate((sources, targets)), np.concatenate((targets, sources)))
    graph = coo_array((np.ones(len(ends[0]), dtype=np.int8), ends), shape=(num_images, num_images)).tocsr()
    graph.sort_indices()
    order: Positions = _grow(graph.indptr.astype(np.int64), graph.indices.astype(np.int32))
    return order


@numba.njit(cache=True)
def _grow(starts: NDArray[np.int64], neighbours: Positions) -> Positions:
    num_images = len(starts) - 1
    order = np.empty(num_images, dtype=np.int32)
    is_placed = np.zeros(num_images, dtype=np.bool_)
    num_placed_neighbours = np.zeros(num_images, dtype=np.int32)
    num_placed = 0
    waiting = [(0.0, np.int64(0))]
    waiting.pop()
    for seed in range(num_images):
        if is_placed[seed] or starts[seed] == starts[seed + 1]:
            continue
        heapq.heappush(waiting, (0.0, np.int64(seed)))
        while waiting:
            image = heapq.heappop(waiting)[1]
            if is_placed[image]:
                continue  # an entry from when fewer of its neighbours were placed
            is_placed[image] = True
            order[num_placed] = image
            num_placed += 1
            for edge in range(starts[image], starts[image + 1]):
                other = neighbours[edge]
                if not is_placed[other]:
                    num_placed_neighbours[other] += 1
                    part = num_placed_neighbours[other] / (starts[other + 1] - starts[other])
                    heapq.heappush(waiting, (-part, np.int64(other)))
    for rest in range(num_images):
        if not is_placed[rest]:
            order[num_placed] = rest
            num_placed += 1
    return order


def _hashes(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A hash of each number, different for all: number n gets the n-th draw of SplitMix64 with seed 0, counted from 0.

    SplitMix64: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
    """
    with np.errstate(over="ignore"):
        mixed = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))
