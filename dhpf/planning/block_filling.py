"""Fills blocks with tiles of pairs; a tile is split only if it alone has more pairs than a block may have.

A tile is the pairs between two sub-groups of images (dhpf.planning.listed_blocks); its pairs have one rank.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from dhpf.planning.image_order import Positions


class BlockFiller:
    """Fills blocks with tiles in the order they come; a block closes when the next tile would exceed a limit."""

    def __init__(self, num_images: int, max_images: int, max_pairs: int) -> None:
        self._limits = (max_images, max_pairs)
        self._block_of_image = np.full(num_images, -2, dtype=np.int64)
        self._tile_of_image = np.full(num_images, -1, dtype=np.int64)
        self._state = np.zeros(5, dtype=np.int64)

    def fill(self, ranks: NDArray[np.int64], lower: Positions, upper: Positions) -> NDArray[np.int64]:
        """Adds pairs to the open block, and closes it as often as it is full.

        Args:
            ranks: (P,) of each pair's tile; ascending. All pairs of a tile come in one call.
            lower, upper: (P,) the two images of each pair.

        Returns:
            (B, 3) number of pairs, images and shared images of each block that these pairs close.
        """
        closed: NDArray[np.int64] = _fill_blocks(
            ranks, lower, upper, *self._limits, self._block_of_image, self._tile_of_image, self._state
        )
        return closed

    def close(self) -> NDArray[np.int64]:
        """(B, 3) as `fill` gives it, of the block that is still open; B is 0 if there is none."""
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
    tile_of_image: NDArray[np.int64],
    state: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Does `BlockFiller.fill`.

    `state` holds five numbers from one call to the next: the number of the open block, its pairs, images and shared
    images, and how many tiles came. `block_of_image` and `tile_of_image` say in which block and tile an image was last.
    """
    closed = [(np.int64(0), np.int64(0), np.int64(0))]
    closed.pop()
    begin = 0
    while begin < len(ranks):
        end, num_new = begin, 0
        state[4] += 1
        while end < len(ranks) and ranks[end] == ranks[begin]:
            for image in (lower[end], upper[end]):
                if tile_of_image[image] != state[4]:
                    tile_of_image[image] = state[4]
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
