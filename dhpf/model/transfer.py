"""From best cells to points: keypoint transfer, dense flow, best matches; and the mutual nearest neighbour filter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dhpf.config import GRID_SIDE
from dhpf.model.best_cells import ZERO_MAXIMUM, BestCells, nonzero
from dhpf.model.geometry import cell_centres, covering_cells, transfer_points
from dhpf.model.joint import JointMatches

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
        source_points, target_points: (M, 2) in the 240 x 240 frame; the source's are cell centres, and the target's too
            unless the pair was matched jointly.
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
    row_maximum = nonzero(correlation.amax(dim=2, keepdim=True))
    column_maximum = nonzero(correlation.amax(dim=1, keepdim=True))
    return correlation * (correlation / row_maximum) * (correlation / column_maximum)


def cells_of_points(points: Tensor, valid: Tensor) -> Tensor:
    """(B, N) bool, the source cells whose match is needed to transfer (B, K, 2) points of the frame, (B, K) valid."""
    return (covering_cells(points) & valid.unsqueeze(-1)).any(dim=1)


def transfer(found: BestCells, points: Tensor, valid: Tensor) -> TransferredPoints:
    """Transfers source points to the target (ALGORITHM section 7).

    Args:
        found: of B pairs, matched with `cells_of_points(points, valid)` wanted.
        points: (B, K, 2) source points in the frame.
        valid: (B, K) bool, False for padding.
    """
    confidence = match_confidence(found.filtered_value, found.best_score[:, None])
    return _moved(dense_flow(found), confidence, points, valid)


def transfer_jointly(found: JointMatches, points: Tensor, valid: Tensor) -> TransferredPoints:
    """Transfers source points of one pair that was matched jointly; the confidence is the paths' agreement.

    Args:
        points: (1, K, 2) source points in the frame.
        valid: (1, K) bool, False for padding.
    """
    return _moved(found.points[None], found.agreement[None], points, valid)


def _moved(target_points: Tensor, confidence: Tensor, points: Tensor, valid: Tensor) -> TransferredPoints:
    """Args: target_points, confidence: (B, N, 2) and (B, N) of every source cell."""
    covering = covering_cells(points) & valid.unsqueeze(-1)
    moved, located = transfer_points(points, covering, target_points)
    share = covering.to(points.dtype)
    of_cells = confidence.to(points.dtype).unsqueeze(-1)
    mean_confidence = (share @ of_cells).squeeze(-1) / share.sum(dim=-1).clamp(min=1)
    return TransferredPoints(moved, located, mean_confidence)


def dense_flow(found: BestCells) -> Tensor:
    """(B, N, 2) target point in the frame of every source cell's centre, of pairs matched with every cell wanted."""
    return cell_centres(device=found.filtered_target.device)[found.filtered_target]


def mutual_matches(found: BestCells, limit: int, joint: JointMatches | None = None) -> CellMatches:
    """At most `limit` pairs of cells that are each other's best, of one pair.

    Neighbouring cells say almost the same, so each tile of 4 x 4 source cells gives its most confident match alone.

    Args:
        joint: of the same pair; then a match lies where all paths say, and is as confident as they agree.
    """
    value, target = found.value[0], found.target[0]
    source = torch.arange(len(target), device=target.device)
    agreed = (value == found.column_maximum[0][target]) & (value > 0)
    # Of several source cells that share a target's maximum, the first one is its match.
    first = torch.full_like(target, len(target)).scatter_reduce(0, target[agreed], source[agreed], "amin")
    mutual = (agreed & (first[target] == source)).nonzero().flatten()
    centres = cell_centres(device=target.device)
    confidence = match_confidence(value, found.best_score[0]) if joint is None else joint.agreement
    points = centres[target] if joint is None else joint.points
    ranking = value if joint is None else confidence
    ranked = mutual[ranking[mutual].argsort(descending=True, stable=True)]
    chosen = ranked[_first_of_each(_tile(ranked))][:limit]
    return CellMatches(centres[chosen], points[chosen], confidence[chosen])


def _tile(cells: Tensor) -> Tensor:
    return cells // GRID_SIDE // TILE_SIDE * GRID_SIDE + cells % GRID_SIDE // TILE_SIDE


def _first_of_each(labels: Tensor) -> Tensor:
    """Positions, ascending, at which a label stands for the first time."""
    positions = torch.arange(len(labels), device=labels.device)
    first = torch.full((GRID_SIDE * GRID_SIDE,), len(labels), device=labels.device)
    first.scatter_reduce_(0, labels, positions, "amin")
    return first[first < len(labels)].sort().values
