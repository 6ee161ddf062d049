"""Turns spans into arrays: lists their pairs, and counts the pairs that each image is in."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from dhpf.planning.spans import Range, Span


def pair_positions(span: Span) -> NDArray[np.int32]:
    """(num_pairs, 2) the pairs (i, j) of a span, ascending."""
    sources = np.arange(span.source_begin, span.source_end, dtype=np.int32)
    bounds = np.array([span.targets_of(int(source)) for source in sources])
    counts = bounds[:, 1] - bounds[:, 0]
    starts = np.cumsum(counts) - counts
    targets = np.arange(counts.sum()) + np.repeat(bounds[:, 0] - starts, counts)
    return np.stack((np.repeat(sources, counts), targets.astype(np.int32)), axis=1)


def num_degrees(spans: Iterable[Span], num_images: int) -> NDArray[np.int64]:
    """(num_images,) how many pairs of the spans each position is in."""
    degrees = np.zeros(num_images, dtype=np.int64)
    for span in spans:
        sources, targets = span.ranges
        degrees[slice(*sources)] += _num_partners(sources, targets, (1, span.reach) if span.reach else None)
        degrees[slice(*targets)] += _num_partners(targets, sources, (-span.reach, -1) if span.reach else None)
    return degrees


def _num_partners(positions: Range, partners: Range, steps: tuple[int, int] | None) -> NDArray[np.int64] | int:
    """For each position the number of partners from steps[0] to steps[1] away; without steps, all of them."""
    if steps is None:
        return partners[1] - partners[0]
    each = np.arange(*positions, dtype=np.int64)
    return np.minimum(each + steps[1] + 1, partners[1]) - np.maximum(each + steps[0], partners[0])
