"""How many images and pairs a block may hold where nobody says.

Blocks should be so small that several workers share a collection, and so large that few images are described twice.
"""

from __future__ import annotations

from dataclasses import dataclass

LARGEST_BLOCK = 500
"""Pairs of a block of a large collection: what is lost at most when a worker dies."""

SMALLEST_BLOCK = 24
"""A collection is not cut into smaller blocks than this many pairs: they would describe the same images again."""

WANTED_BLOCKS = 6
"""Blocks that a collection is cut into if it has pairs enough, so that several workers have several blocks each."""


@dataclass(frozen=True)
class BlockLimits:
    """How many images and how many pairs a block may hold."""

    max_images: int
    max_pairs: int


def block_limits(num_pairs: int | None, *, max_images: int | None = None, max_pairs: int | None = None) -> BlockLimits:
    """The limits that the blocks of a collection are planned with; whoever plans it the same way gets the same blocks.

    Args:
        num_pairs: of the collection; None where they are not counted yet, which is taken as a large collection.
        max_images: what memory allows; None: all images that the pairs of a block can have.
        max_pairs: None: what suits `num_pairs`.
    """
    if max_pairs is None:
        max_pairs = LARGEST_BLOCK if num_pairs is None else pairs_of_a_block(num_pairs)
    return BlockLimits(2 * max_pairs if max_images is None else max_images, max_pairs)


def pairs_of_a_block(num_pairs: int) -> int:
    """How many pairs a block of a collection with so many pairs may hold.

    It depends on nothing else, so that a plan made again is the same.
    """
    return min(LARGEST_BLOCK, max(SMALLEST_BLOCK, -(-num_pairs // WANTED_BLOCKS)))
