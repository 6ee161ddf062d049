"""From a correlation to points: the mutual nearest neighbour filter, keypoint transfer, dense flow, best matches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dhpf.config import GRID_SIDE
from dhpf.model.geometry import cell_centres, covering_cells, transfer_points

ZERO_MAXIMUM = 1e-30
"""Stands for a row's or column's maximum of exactly 0, so that it can be divided by."""


TILE_SIDE = 4
"""Cells per side of the tiles that give one match each."""


@dataclass(frozen=True)
class TransferredPoints:
    """Where B pairs' source points lie in the target.

    Attributes:
        points: (B, K, 2) in the 240 x 240 frame; 0 where invalid.
        valid: (B, K) bool; False for padding and for a point that no cell covers.
        confidence: (B, K) in [0, 1]; see `match_confidence`.
    """

    points: Tensor
    valid: Tensor
    confidence: Tensor


@dataclass(frozen=True)
class CellMatches:
    """The mutual nearest neighbours of one pair, the most confident first.

    Attributes:
        source_points, target_points: (M, 2) cell centres in the 240 x 240 frame.
        confidence: (M,) in [0, 1].
    """

    source_points: Tensor
    target_points: Tensor
    confidence: Tensor


def match_confidence(correlation: Tensor, best_score: Tensor) -> Tensor:
    """Appearance (a power of the cosine) times the geometric score, as a share of the pair's strongest displacement.

    It lies in [0, 1] and can be compared between pairs: 1 is a perfect likeness that moves with all the others.
    """
    return (correlation / best_score.clamp(min=ZERO_MAXIMUM)).clamp(0, 1)


def mutual_filter(correlation: Tensor) -> Tensor:
    """(B, S, T) correlation with each entry scaled by its share of its row's and of its column's maximum."""
    row_maximum = _nonzero(correlation.amax(dim=2, keepdim=True))
    column_maximum = _nonzero(correlation.amax(dim=1, keepdim=True))
    return correlation * (correlation / row_maximum) * (correlation / column_maximum)


def best_target_cells(correlation: Tensor, source_cells: Tensor) -> Tensor:
    """(R,) the target cell that each of (R,) source cells points to, in one pair's (S, T) correlation."""
    column_maximum = _nonzero(correlation.amax(dim=0))
    rows = correlation[source_cells]
    return (rows * (rows / _nonzero(rows.amax(dim=1, keepdim=True))) * (rows / column_maximum)).argmax(dim=1)


def transfer(correlation: Tensor, best_score: Tensor, points: Tensor, valid: Tensor) -> TransferredPoints:
    """Transfers source points to the target (ALGORITHM section 7).

    Args:
        correlation: (B, S, T).
        best_score: (B,) from MatcherOutput.
        points: (B, K, 2) source points in the frame.
        valid: (B, K) bool, False for padding.
    """
    covering = covering_cells(points) & valid.unsqueeze(-1)
    target_cells = torch.zeros(covering.shape[0], covering.shape[2], dtype=torch.long, device=points.device)
    confidence = torch.zeros_like(target_cells, dtype=points.dtype)
    for pair, needed in enumerate(covering.any(dim=1)):
        cells = needed.nonzero().flatten()
        best = best_target_cells(correlation[pair], cells)
        target_cells[pair, cells] = best
        confidence[pair, cells] = match_confidence(correlation[pair, cells, best], best_score[pair]).to(points.dtype)
    moved, found = transfer_points(points, covering, target_cells)
    share = covering.to(points.dtype)
    mean_confidence = (share @ confidence.unsqueeze(-1)).squeeze(-1) / share.sum(dim=-1).clamp(min=1)
    return TransferredPoints(moved, found, mean_confidence)


def dense_flow(correlation: Tensor) -> Tensor:
    """(S, 2) target point in the frame of every source cell's centre, in one pair's (S, T) correlation."""
    every_cell = torch.arange(correlation.shape[0], device=correlation.device)
    return cell_centres(device=correlation.device)[best_target_cells(correlation, every_cell)]


def mutual_matches(correlation: Tensor, best_score: Tensor, limit: int) -> CellMatches:
    """At most `limit` pairs of cells that are each other's best in one pair's (S, T) correlation.

    Neighbouring cells say almost the same, so each tile of 4 x 4 source cells gives its most confident match alone.
    """
    value, target = correlation.max(dim=1)
    source_of_target = correlation.argmax(dim=0)
    source = torch.arange(len(target), device=target.device)
    mutual = ((source_of_target[target] == source) & (value > 0)).nonzero().flatten()
    ranked = mutual[value[mutual].argsort(descending=True, stable=True)]
    chosen = ranked[_first_of_each(_tile(ranked))][:limit]
    centres = cell_centres(device=correlation.device)
    return CellMatches(centres[chosen], centres[target[chosen]], match_confidence(value[chosen], best_score))


def _tile(cells: Tensor) -> Tensor:
    return cells // GRID_SIDE // TILE_SIDE * GRID_SIDE + cells % GRID_SIDE // TILE_SIDE


def _first_of_each(labels: Tensor) -> Tensor:
    """Positions, ascending, at which a label stands for the first time."""
    positions = torch.arange(len(labels), device=labels.device)
    first = torch.full((GRID_SIDE * GRID_SIDE,), len(labels), device=labels.device)
    first.scatter_reduce_(0, labels, positions, "amin")
    return first[first < len(labels)].sort().values


def _nonzero(maximum: Tensor) -> Tensor:
    return torch.where(maximum == 0, torch.full_like(maximum, ZERO_MAXIMUM), maximum)
