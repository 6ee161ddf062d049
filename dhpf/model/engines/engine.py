"""The protocol of engines, which take pairs of images with known features and give the best cells of each pair.

Best cells are maxima of a correlation and their positions, so that the matrix need not be kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor

from dhpf.config import ReadoutName
from dhpf.model.hough import HoughVoting
from dhpf.model.readout import cell_points, read_out
from dhpf.model.usable_cells import UsableCells

ZERO_MAXIMUM = 1e-30
"""Stands for a row's or column's maximum of exactly 0, so that the mutual filter can divide by it."""


@dataclass(frozen=True)
class MatchProblem:
    """B pairs of images whose features are known.

    Attributes:
        source_maps, target_maps: for each layer (images, C_l, side_l, side_l), side_l <= 60; the two may be one.
        pairs: (source number, target number) in these maps, for each pair.
        selected: (B, L) bool, the layers that count for each pair; at least one each.
        source_lengths, target_lengths: (B, N) length of each cell's hyperfeature.
        source_votes, target_votes: (B, N) how much each cell's votes count, those of unusable cells not at all; or
            (B, 0) where all count alike.
        exponent: power of the rectified cosine.
        hough: computes scores from votes.
        wanted: (B, N) bool, source cells whose filtered match is asked for.
        readout: how a match's point is found.
        usable: the cells that take part; None for all.
    """

    source_maps: tuple[Tensor, ...]
    target_maps: tuple[Tensor, ...]
    pairs: Sequence[tuple[int, int]]
    selected: Tensor
    source_lengths: Tensor
    target_lengths: Tensor
    source_votes: Tensor
    target_votes: Tensor
    exponent: int
    hough: HoughVoting
    wanted: Tensor
    readout: ReadoutName
    usable: UsableCells | None = None

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


@dataclass(frozen=True)
class BestCells:
    """The best cells of B pairs, by the correlation as it is and after the mutual nearest neighbour filter.

    Attributes:
        target: (B, N) each source cell's target cell of highest correlation; the first one on ties.
        value: (B, N) that highest correlation.
        column_maximum: (B, N) highest correlation of each target cell.
        filtered_target: (B, N) each wanted source cell's best target cell after the filter; 0 where not wanted.
        filtered_value: (B, N) correlation, unfiltered, of that match; 0 where not wanted.
        points: (B, N, 2) target point in the frame of each source cell: of its filtered match, where that is wanted,
            and of mutual matches that are read softly; else the centre of `target`.
        geometric_scores: (B, 119, 119) Hough score of each displacement [dy, dx] in cells, from -59 to 59.
    """

    target: Tensor
    value: Tensor
    column_maximum: Tensor
    filtered_target: Tensor
    filtered_value: Tensor
    points: Tensor
    geometric_scores: Tensor

    def __len__(self) -> int:
        return len(self.value)

    @property
    def best_score(self) -> Tensor:
        """(B,) geometric score of the strongest displacement, the unit of confidences."""
        return self.geometric_scores.amax(dim=(1, 2))

    def __getitem__(self, pair: int) -> BestCells:
        """One pair alone, as a batch of one."""
        return BestCells(*(getattr(self, field.name)[pair : pair + 1] for field in fields(self)))

    @classmethod
    def of_pair(cls, *values: Tensor) -> BestCells:
        """One pair's values, in the order of the attributes and without their first dimension."""
        return cls(*(value[None] for value in values))

    @classmethod
    def concatenate(cls, parts: Sequence[BestCells]) -> BestCells:
        """Several batches as one."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def to(self, device: torch.device | str) -> BestCells:
        """The same on a device."""
        return BestCells(*(getattr(self, field.name).to(device) for field in fields(self)))


def best_cells(
    correlation: Tensor, geometric_scores: Tensor, wanted: Tensor, readout: ReadoutName = "cell"
) -> BestCells:
    """The best cells of whole (B, S, T) correlations.

    Args:
        geometric_scores: (B, 119, 119) as in BestCells.
        wanted: (B, N) bool, the source cells whose filtered match is asked for.
        readout: how a match's point is found.
    """
    value, target = correlation.max(dim=2)
    column_maximum = correlation.amax(dim=1)
    parts = []
    for pair in range(len(correlation)):
        maxima = Maxima(target[pair], value[pair], column_maximum[pair])
        found = maxima.filter(correlation[pair].__getitem__, wanted[pair], readout)
        parts.append(BestCells.of_pair(*found, geometric_scores[pair]))
    return BestCells.concatenate(parts)


@dataclass(frozen=True)
class Maxima:
    """The maxima of one pair's correlation; attributes as in BestCells, of one pair."""

    target: Tensor
    value: Tensor
    column_maximum: Tensor

    def read_cells(self, wanted: Tensor, readout: ReadoutName) -> Tensor:
        """(N,) bool, the source cells whose rows are read: wanted ones, and with soft read-out mutual matches."""
        if readout == "cell":
            return wanted
        return wanted | ((self.value == self.column_maximum[self.target]) & (self.value > 0))

    def filter(
        self, rows_of: Callable[[Tensor], Tensor], wanted: Tensor, readout: ReadoutName
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """One pair's attributes of BestCells but the last, once its maxima are known.

        Args:
            rows_of: (R,) source cells -> (R, T) rows of the correlation.
            wanted: (N,) bool.
        """
        cells = self.read_cells(wanted, readout).nonzero().flatten()
        rows = rows_of(cells)
        row_maximum, column_maximum = nonzero(self.value[cells]), nonzero(self.column_maximum)
        filtered = rows * (rows / row_maximum[:, None]) * (rows / column_maximum)
        best = filtered.argmax(dim=1)
        filtered_target, filtered_value = torch.zeros_like(self.target), torch.zeros_like(self.value)
        points = cell_points(self.target, math.isqrt(len(self.target)))
        filtered_target[cells], filtered_value[cells] = best, rows.gather(1, best[:, None])[:, 0]
        points[cells] = read_out(filtered, best, readout)
        not_wanted = ~wanted
        filtered_target[not_wanted], filtered_value[not_wanted] = 0, 0
        return self.target, self.value, self.column_maximum, filtered_target, filtered_value, points


def nonzero(maximum: Tensor) -> Tensor:
    """The maxima, with a tiny number in place of 0, so that one can divide by them."""
    return torch.where(maximum == 0, torch.full_like(maximum, ZERO_MAXIMUM), maximum)


class MatchEngine(Protocol):
    """Matches pairs. Engines differ in speed alone, not in results."""

    def __call__(self, problem: MatchProblem) -> BestCells: ...
