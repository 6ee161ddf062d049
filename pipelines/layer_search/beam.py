"""Beam search over sets of layers, one level for each size of set: which sets to score next, and which one is the best.

As in Hyperpixel Flow (Min, Lee, Ponce, Cho, ICCV 2019): single layers first, then each of the best sets with one layer
more. The next level depends on nothing but the levels already scored, so that a stopped search can go on.
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
"""All sets of one size that were scored: level n, counted from 0, holds sets of n + 1 layers."""


def next_sets(levels: Sequence[Level], num_layers: int, beam: int) -> list[Layers]:
    """The sets to score for the next level, each once; none when the search is over.

    The search is over when the last level found nothing better than the levels before it, or no layer is left to add.
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
    """The best sets of a level, at most `beam` of them and the best first: the next level extends these."""
    return sorted(level, key=_rank)[:beam]


def best_set(levels: Sequence[Level]) -> ScoredSet:
    """The set with the highest PCK; of equal ones the smallest, then the one with the lowest layers."""
    return min((scored for level in levels for scored in level), key=_rank)


def _has_improved(levels: Sequence[Level]) -> bool:
    return best_set(levels) in levels[-1]


def _rank(scored: ScoredSet) -> tuple[float, int, Layers]:
    return -scored.pck, len(scored.layers), scored.layers
