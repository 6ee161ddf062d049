"""The result of matching one pair of images, in one form for pairs matched alone and for pairs matched jointly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dhpf.config import GRID_SIDE
from dhpf.model.best_cells import BestCells
from dhpf.model.geometry import cell_centres
from dhpf.model.joint import JointMatches
from dhpf.model.transfer import TransferredPoints, dense_flow, match_confidence, transfer_by_cells

TILE_SIDE = 4
"""Cells per side of the tiles that give one mutual match each: neighbouring cells say almost the same."""


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
        confidence: (N,) in [0, 1] of these points: `match_confidence`, or what share of all paths agrees.
        mutual: the mutual matches.
    """

    points: Tensor
    confidence: Tensor
    mutual: MutualMatches

    @classmethod
    def alone(cls, found: BestCells) -> PairMatch:
        """The result of a pair matched alone, from its best cells (a batch of one)."""
        best_score = found.best_score[0]
        confidence = match_confidence(found.value[0], best_score)
        points = cell_centres(device=confidence.device)[found.target[0]]
        return cls(
            dense_flow(found)[0],
            match_confidence(found.filtered_value[0], best_score),
            _mutual_matches(found, ranking=found.value[0], points=points, confidence=confidence),
        )

    @classmethod
    def jointly(cls, found: BestCells, joint: JointMatches) -> PairMatch:
        """The result of a pair matched jointly: best cells say which matches are mutual, paths give the points."""
        points, agreement = joint.points, joint.agreement
        mutual = _mutual_matches(found, ranking=agreement, points=points, confidence=agreement)
        return cls(points, agreement, mutual)

    def transfer(self, points: Tensor) -> TransferredPoints:
        """Transfers (K, 2) source points of the frame, whose cells were wanted; the result is a batch of one."""
        valid = torch.ones(1, len(points), dtype=torch.bool, device=points.device)
        return transfer_by_cells(self.points[None], self.confidence[None], points[None], valid)


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
