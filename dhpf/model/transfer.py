"""From best cells to points: keypoint transfer and dense flow of a batch, and all matches of one pair.

A pair's matches have one form, `PairMatch`, whether it was matched alone or jointly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dhpf.config import GRID_SIDE, ReadoutName
from dhpf.frame import cell_centres, covering_cells, transfer_points
from dhpf.model.engines.engine import ZERO_MAXIMUM, BestCells, nonzero
from dhpf.model.joint import JointMatches

NEARNESS = 6.0
"""Standard deviation in pixels of the frame of the Gaussian by which cells near a point count."""

TILE_SIDE = 4
"""Cells per side of the tiles that give one mutual match each: neighbouring cells have almost the same match."""


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

    It lies in [0, 1] and can be compared between pairs: 1 stands for equal features and the strongest displacement.
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
    """Transfers source points to the target: each moves by the mean displacement of the source cells that cover it.

    See docs/algorithm.md, section 7.

    Args:
        found: of B pairs, matched with `cells_of_points(points, valid)` wanted.
        points: (B, K, 2) source points in the frame.
        valid: (B, K) bool, False for padding.
    """
    confidence = match_confidence(found.filtered_value, found.best_score[:, None])
    return transfer_by_cells(found.points, confidence, points, valid)


def transfer_by_cells(
    target_points: Tensor, confidence: Tensor, points: Tensor, valid: Tensor, matched: Tensor | None = None
) -> TransferredPoints:
    """Transfers source points with the source cells that cover them.

    Args:
        target_points: (B, N, 2) in the frame, of every source cell.
        confidence: (B, N) of these.
        points: (B, K, 2) source points in the frame.
        valid: (B, K) bool, False for padding.
        matched: (B, N) bool, the source cells that have a match; None for all.
    """
    covering = covering_cells(points) & valid.unsqueeze(-1)
    if matched is not None:
        covering &= matched.unsqueeze(-2)
    moved, located = transfer_points(points, covering, target_points)
    share = covering.to(points.dtype)
    of_cells = confidence.to(points.dtype).unsqueeze(-1)
    mean_confidence = (share @ of_cells).squeeze(-1) / share.sum(dim=-1).clamp(min=1)
    return TransferredPoints(moved, located, mean_confidence)


def transfer_by_agreement(
    target_points: Tensor, confidence: Tensor, points: Tensor, valid: Tensor, matched: Tensor | None = None
) -> TransferredPoints:
    """Transfers source points with all cells near them, each weighted by its confidence and a Gaussian of its distance.

    Arguments as for `transfer_by_cells`; valid are the same points.
    """
    centres = cell_centres(points.dtype, points.device)
    squares = (points.unsqueeze(-2) - centres).square().sum(dim=-1)
    nearness = (-squares / (2 * NEARNESS**2)).exp()
    covering = covering_cells(points) & valid.unsqueeze(-1)
    if matched is not None:
        nearness, covering = nearness * matched.unsqueeze(-2), covering & matched.unsqueeze(-2)
    weights = nearness * confidence.to(points.dtype).unsqueeze(-2).clamp(min=ZERO_MAXIMUM)
    total = weights.sum(dim=-1, keepdim=True)
    located = covering.any(dim=-1)
    moved = points + (weights @ (target_points.to(points.dtype) - centres)) / total.clamp(min=ZERO_MAXIMUM)
    near = total.squeeze(-1) / nearness.sum(dim=-1).clamp(min=ZERO_MAXIMUM)
    return TransferredPoints(moved * located.unsqueeze(-1), located, near * located)


@dataclass(frozen=True)
class MutualMatches:
    """Cells that are each other's best match, the most confident first; at most one match per tile of source cells.

    Attributes:
        source_points, target_points: (M, 2) in the 240 x 240 frame; the source's are cell centres, and the target's too
            unless the pair was matched jointly.
        confidence: (M,) in [0, 1].
    """

    source_points: Tensor
    target_points: Tensor
    confidence: Tensor

    def __len__(self) -> int:
        return len(self.confidence)

    def best(self, limit: int) -> MutualMatches:
        """The most confident ones, at most `limit`."""
        return MutualMatches(self.source_points[:limit], self.target_points[:limit], self.confidence[:limit])


@dataclass(frozen=True)
class PairMatch:
    """The matches of one pair of images; `alone` and `jointly` make it from the two ways of matching.

    Attributes:
        points: (N, 2) target point in the 240 x 240 frame of every source cell; of a pair that was matched alone, of
            the cells that were wanted.
        confidence: (N,) in [0, 1] of these points: `match_confidence`, or the share of all paths that agree.
        mutual: the mutual matches.
        is_weighted: whether a point moves with all cells near it, by their confidence, instead of with those that cover
            it.
        matched: (N,) bool, the source cells that have a match, where not all cells were usable; None for all.
    """

    points: Tensor
    confidence: Tensor
    mutual: MutualMatches
    is_weighted: bool = False
    matched: Tensor | None = None

    @classmethod
    def alone(cls, found: BestCells, usable: Tensor | None = None) -> PairMatch:
        """The result of a pair matched alone, from its best cells (a batch of one).

        Args:
            usable: (N,) bool, the source cells that took part; None for all.
        """
        best_score = found.best_score[0]
        confidence = match_confidence(found.value[0], best_score)
        return cls(
            found.points[0],
            match_confidence(found.filtered_value[0], best_score),
            _mutual_matches(found, ranking=found.value[0], points=found.points[0], confidence=confidence),
            matched=usable if usable is None else usable & (found.value[0] > 0),
        )

    @classmethod
    def jointly(
        cls, found: BestCells, joint: JointMatches, readout: ReadoutName, usable: Tensor | None = None
    ) -> PairMatch:
        """The result of a pair matched jointly: best cells tell which matches are mutual, paths give the points.

        Args:
            usable: as for `alone`.
        """
        points, agreement = joint.points, joint.agreement
        mutual = _mutual_matches(found, ranking=agreement, points=points, confidence=agreement)
        matched = usable if usable is None else usable & (agreement > 0)
        return cls(points, agreement, mutual, is_weighted=readout == "soft", matched=matched)

    def transfer(self, points: Tensor) -> TransferredPoints:
        """Transfers (K, 2) source points of the frame, whose cells were wanted; the result is a batch of one."""
        valid = torch.ones(1, len(points), dtype=torch.bool, device=points.device)
        by_cells = transfer_by_agreement if self.is_weighted else transfer_by_cells
        matched = self.matched if self.matched is None else self.matched[None]
        return by_cells(self.points[None], self.confidence[None], points[None], valid, matched)


def _mutual_matches(found: BestCells, *, ranking: Tensor, points: Tensor, confidence: Tensor) -> MutualMatches:
    """Args: ranking, points, confidence: (N,), (N, 2) and (N,) of the source cells' matches."""
    value, target = found.value[0], found.target[0]
    source = torch.arange(len(target), device=target.device)
    agreed = (value == found.column_maximum[0][target]) & (value > 0)
    # Of several source cells that share a target's maximum, the first one is its match.
    first = torch.full_like(target, len(target)).scatter_reduce(0, target[agreed], source[agreed], "amin")
    mutual = (agreed & (first[target] == source)).nonzero().flatten()
    ranked = mutual[ranking[mutual].argsort(descending=True, stable=True)]
    chosen = ranked[_first_of_each(_tile(ranked))]
    return MutualMatches(cell_centres(device=target.device)[chosen], points[chosen], confidence[chosen])


def _tile(cells: Tensor) -> Tensor:
    return cells // GRID_SIDE // TILE_SIDE * GRID_SIDE + cells % GRID_SIDE // TILE_SIDE


def _first_of_each(labels: Tensor) -> Tensor:
    """Positions, ascending, at which a label stands for the first time."""
    positions = torch.arange(len(labels), device=labels.device)
    first = torch.full((GRID_SIDE * GRID_SIDE,), len(labels), device=labels.device)
    first.scatter_reduce_(0, labels, positions, "amin")
    return first[first < len(labels)].sort().values
