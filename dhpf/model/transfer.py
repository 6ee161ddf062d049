"""From best cells to points: keypoint transfer and dense flow of a batch, and the mutual nearest neighbour filter."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dhpf.model.best_cells import ZERO_MAXIMUM, BestCells, nonzero
from dhpf.model.geometry import cell_centres, covering_cells, transfer_points


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
    """Transfers source points to the target: each moves as the source cells that cover it do, on the average.

    See docs/algorithm.md, section 7.

    Args:
        found: of B pairs, matched with `cells_of_points(points, valid)` wanted.
        points: (B, K, 2) source points in the frame.
        valid: (B, K) bool, False for padding.
    """
    confidence = match_confidence(found.filtered_value, found.best_score[:, None])
    return transfer_by_cells(dense_flow(found), confidence, points, valid)


def transfer_by_cells(target_points: Tensor, confidence: Tensor, points: Tensor, valid: Tensor) -> TransferredPoints:
    """Transfers source points with the source cells that cover them.

    Args:
        target_points: (B, N, 2) in the frame, of every source cell.
        confidence: (B, N) of these.
        points: (B, K, 2) source points in the frame.
        valid: (B, K) bool, False for padding.
    """
    covering = covering_cells(points) & valid.unsqueeze(-1)
    moved, located = transfer_points(points, covering, target_points)
    share = covering.to(points.dtype)
    of_cells = confidence.to(points.dtype).unsqueeze(-1)
    mean_confidence = (share @ of_cells).squeeze(-1) / share.sum(dim=-1).clamp(min=1)
    return TransferredPoints(moved, located, mean_confidence)


def dense_flow(found: BestCells) -> Tensor:
    """(B, N, 2) target point in the frame of every source cell's centre, of pairs matched with every cell wanted."""
    return cell_centres(device=found.filtered_target.device)[found.filtered_target]
