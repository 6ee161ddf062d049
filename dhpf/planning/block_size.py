"""How many pairs a block may hold if nobody says: few enough for several workers, as many as keeps describing cheap."""

from __future__ import annotations

LARGEST_BLOCK = 500
"""Pairs of a block of a large collection: what is lost at most when a worker dies."""

SMALLEST_BLOCK = 24
"""Pairs below which a collection is not cut further: smaller blocks would describe the same images over and over."""

WANTED_BLOCKS = 6
"""Blocks that a collection is cut into if it has pairs enough, so that several workers have several blocks each."""


def pairs_of_a_block(num_pairs: int) -> int:
    """The `max_pairs` of a collection with so many pairs; it depends on nothing else, so that a plan stays as it is."""
    return min(LARGEST_BLOCK, max(SMALLEST_BLOCK, -(-num_pairs // WANTED_BLOCKS)))
