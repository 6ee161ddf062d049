"""Cells of pairs into blocks: a cell is never split unless it alone has more pairs than a block may have."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from dhpf.planning.image_order import Positions


class BlockFiller:
    """Fills blocks with cells as they come; a block closes when the next cell would exceed a limit."""

    def __init__(self, num_images: int, max_images: int, max_pairs: int) -> None:
        self._limits = (max_images, max_pairs)
        self._block_of_image = np.full(num_images, -2, dtype=np.int64)
        self._cell_of_image = np.full(num_images, -1, dtype=np.int64)
        self._state = np.zeros(5, dtype=np.int64)

    def fill(self, ranks: NDArray[np.int64], lower: Positions, upper: Positions) -> NDArray[np.int64]:
        """(B, 3) pairs, images and shared images of each block that is closed by these pairs; whole cells."""
        closed: NDArray[np.int64] = _fill_blocks(
            ranks, lower, upper, *self._limits, self._block_of_image, self._cell_of_image, self._state
        )
        return closed

    def close(self) -> NDArray[np.int64]:
        """The last block, if there is one."""
        counts = self._state[None, 1:4]
        return counts if counts[0, 0] else counts[:0]


@numba.njit(cache=True)
def _fill_blocks(
    ranks: NDArray[np.int64],
    lower: Positions,
    upper: Positions,
    max_images: int,
    max_pairs: int,
    block_of_image: NDArray[np.int64],
    cell_of_image: NDArray[np.int64],
    state: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The state is the number of the open block, its pairs, images and shared images, and the number of cells seen."""
    closed = [(np.int64(0), np.int64(0), np.int64(0))]
    closed.pop()
    begin = 0
    while begin < len(ranks):
        end, num_in_cell, num_new = begin, 0, 0
        state[4] += 1
        while end < len(ranks) and ranks[end] == ranks[begin]:
            for image in (lower[end], upper[end]):
                if cell_of_image[image] != state[4]:
                    cell_of_image[image] = state[4]
                    num_in_cell += 1
                    num_new += block_of_image[image] != state[0]
            end += 1
        does_fit = state[1] + end - begin <= max_pairs and state[2] + num_new <= max_images
        for pair in range(begin, end):
            if (pair == begin and state[1] and not does_fit) or state[1] == max_pairs:
                closed.append((state[1], state[2], state[3]))
                state[0] += 1
                state[1:4] = 0
            state[1] += 1
            for image in (lower[pair], upper[pair]):
                if block_of_image[image] != state[0]:
                    state[2] += 1
                    state[3] += block_of_image[image] == state[0] - 1
                    block_of_image[image] = state[0]
        begin = end
    counts = np.empty((len(closed), 3), dtype=np.int64)
    for index in range(len(closed)):
        counts[index] = closed[index]
    return counts
