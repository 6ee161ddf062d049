"""Paired bootstrap: how certain the difference is between two methods that were tested on the same pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DRAWN_AT_ONCE = 2_000_000
"""So many pairs are drawn at once; it bounds memory, whatever the benchmark's size."""


@dataclass(frozen=True)
class Difference:
    """A mean difference and its percentile interval.

    Attributes:
        mean: over the pairs.
        low, high: ends of the interval.
    """

    mean: float
    low: float
    high: float


def paired_difference(first: Floats, second: Floats, *, confidence: float, resamples: int, seed: int) -> Difference:
    """Mean of `first - second` and its bootstrap interval: pairs are drawn with replacement, both values together.

    How hard a pair is affects both of its values and cancels in their difference, so that the interval is about the
    methods only.

    Args:
        first, second: (P,) values of the same pairs in the same order.
        confidence: share of the resampled means that the interval holds, such as 0.95.
        resamples: how often P pairs are drawn.
        seed: of the draws; the same seed gives the same interval.

    Raises:
        ValueError: no pairs, different numbers of them, or a value that is not finite.
    """
    if first.shape != second.shape or first.ndim != 1 or len(first) == 0:
        raise ValueError(f"values of shape {first.shape} and {second.shape}: one each for one or more pairs expected")
    differences = np.asarray(first, dtype=np.float64) - second
    if not np.isfinite(differences).all():
        raise ValueError("a value is not finite")
    means = _resampled_means(differences, resamples, np.random.default_rng(seed))
    outside = (1 - confidence) / 2
    low, high = np.quantile(means, [outside, 1 - outside])
    return Difference(float(differences.mean()), float(low), float(high))


def _resampled_means(values: Floats, resamples: int, random: np.random.Generator) -> Floats:
    at_once = max(1, DRAWN_AT_ONCE // len(values))
    means = []
    for begin in range(0, resamples, at_once):
        drawn = random.integers(0, len(values), size=(min(at_once, resamples - begin), len(values)))
        means.append(values[drawn].mean(axis=1))
    return np.concatenate(means)
