"""The input of every engine: features of images, the pairs to match, and each pair's layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dhpf.model.best_cells import BestCells
from dhpf.model.hough import HoughVoting


@dataclass(frozen=True)
class MatchProblem:
    """B pairs of images whose features are known.

    Attributes:
        source_maps, target_maps: for each layer (images, C_l, side_l, side_l), side_l <= 60; the two may be one.
        pairs: (source number, target number) in these maps, for each pair.
        selected: (B, L) bool, the layers that count for each pair; at least one each.
        source_lengths, target_lengths: (B, N) length of each cell's hyperfeature.
        exponent: power of the rectified cosine.
        hough: makes scores of votes.
        wanted: (B, N) bool, source cells whose filtered match is asked for.
    """

    source_maps: tuple[Tensor, ...]
    target_maps: tuple[Tensor, ...]
    pairs: Sequence[tuple[int, int]]
    selected: Tensor
    source_lengths: Tensor
    target_lengths: Tensor
    exponent: int
    hough: HoughVoting
    wanted: Tensor

    def layers_by_side(self, pair: int) -> dict[int, list[int]]:
        """The layers that a pair uses, by the side of their maps, ascending."""
        by_side: dict[int, list[int]] = {}
        for layer in self.selected[pair].nonzero().flatten().tolist():
            by_side.setdefault(self.source_maps[layer].shape[-1], []).append(layer)
        return dict(sorted(by_side.items()))

    def features(self, pair: int, layers: list[int], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """(C, side, side) features of source and target, the given layers above each other."""
        source, target = self.pairs[pair]
        return _stacked(self.source_maps, source, layers, dtype), _stacked(self.target_maps, target, layers, dtype)


def _stacked(maps: tuple[Tensor, ...], image: int, layers: list[int], dtype: torch.dtype) -> Tensor:
    return torch.cat([maps[layer][image] for layer in layers]).to(dtype)


class MatchEngine(Protocol):
    """Matches pairs. Engines differ in speed and in nothing else."""

    def __call__(self, problem: MatchProblem) -> BestCells: ...
