"""A beam search over sets of layers, level by level: which sets to score next, and which one is the best.

As in Hyperpixel Flow (Min, Lee, Ponce, Cho, ICCV 2019): single layers first, then each of the best sets with one layer
more. What to do next follows from the levels that are done alone, so that a search goes on wherever it was stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Layers = tuple[int, ...]
"""Different layer numbers, ascending."""


@dataclass(frozen=True)
class ScoredSet:
    """A set of layers and its mean PCK over pairs."""

    layers: Layers
    pck: float


Level = Sequence[ScoredSet]
"""All sets of one size that were scored; level number n, from 0, holds sets of n + 1 layers."""


def next_sets(levels: Sequence[Level], num_layers: int, beam: int) -> list[Layers]:
    """The sets that the next level scores, each once; none when the search is over.

    It is over when the last level found nothing better than the levels before it, or no layer is left to add.
    """
    if not levels:
        return [(layer,) for layer in range(num_layers)]
    if not _has_improved(levels):
        return []
    grown = {
        tuple(sorted({*kept.layers, layer}))
        for kept in kept_sets(levels[-1], beam)
        for layer in range(num_layers)
        if layer not in kept.layers
    }
    return sorted(grown)


def kept_sets(level: Level, beam: int) -> list[ScoredSet]:
    """The at most `beam` best sets of a level, the best first: those that the next level extends."""
    return sorted(level, key=_rank)[:beam]


def best_set(levels: Sequence[Level]) -> ScoredSet:
    """The set of highest PCK; of equal ones the smallest, then the one of the lowest layers."""
    return min((scored for level in levels for scored in level), key=_rank)


def _has_improved(levels: Sequence[Level]) -> bool:
    return best_set(levels) in levels[-1]


def _rank(scored: ScoredSet) -> tuple[float, int, Layers]:
    return -scored.pck, len(scored.layers), scored.layers
