"""What training minimises: strong supervision by keypoints, weak supervision by category (ALGORITHM section 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dhpf.config import GRID_SIDE, SupervisionConfig
from dhpf.model.engines.problem import MatchEngine
from dhpf.model.geometry import nearest_cells
from dhpf.model.network import HyperpixelNetwork, ImageFeatures
from dhpf.model.transfer import TransferredPoints, cells_of_points, mutual_filter, transfer

TINY = 1e-30
SQUEEZED_SIDE = GRID_SIDE // 4
"""Side of the maps whose entropy weak supervision takes: 15."""


@dataclass(frozen=True)
class KeypointBatch:
    """Keypoints of B pairs in the 240 x 240 frame.

    Attributes:
        source, target: (B, K, 2).
        valid: (B, K) bool, False for padding.
        threshold: (B,) the side that PCK thresholds are shares of, in pixels of the frame.
    """

    source: Tensor
    target: Tensor
    valid: Tensor
    threshold: Tensor

    def to(self, device: torch.device) -> KeypointBatch:
        """The same on a device."""
        return KeypointBatch(*(t.to(device) for t in (self.source, self.target, self.valid, self.threshold)))


@dataclass(frozen=True)
class Objective:
    """A batch's loss and what it is made of.

    Attributes:
        loss: scalar, with gradient.
        terms: its named parts, as plain numbers.
        gates: (B, L) layer selection of the pairs, negatives included.
    """

    loss: Tensor
    terms: dict[str, float]
    gates: Tensor


def supervise_strongly(
    network: HyperpixelNetwork,
    source: ImageFeatures,
    target: ImageFeatures,
    keypoints: KeypointBatch,
    config: SupervisionConfig,
    uniform: Tensor,
    engine: MatchEngine,
) -> Objective:
    """The strong objective of B pairs.

    The whole correlation is needed only for votes and for the verdict on the current transfer, which carry no
    gradient; the gradient goes through the rows of the keypoints' cells alone.

    Args:
        uniform: (B, L, 2) draws that make the gates' noise.
        engine: matches, for the part without gradient.
    """
    gates = network.select(source, target, uniform)
    wanted = cells_of_points(keypoints.source, keypoints.valid)
    found = network.match_selected(source, target, [(n, n) for n in range(len(source))], gates, wanted, engine)
    moved = transfer(found, keypoints.source, keypoints.valid)
    weights = keypoint_weights(moved, keypoints, config.alpha)
    source_cells, target_cells = nearest_cells(keypoints.source), nearest_cells(keypoints.target)
    rows = network.correlate_cells(source, target, gates, source_cells, found.geometric_scores)
    return _with_selection_rate(
        "cross_entropy", strong_loss(rows, target_cells, weights, keypoints.valid), gates, config
    )


def keypoint_weights(moved: TransferredPoints, keypoints: KeypointBatch, alpha: float) -> Tensor:
    """(B, K) weight of each keypoint: 1 when transferred wrongly, (distance / reach)^2 when rightly."""
    reach = (alpha * keypoints.threshold).unsqueeze(1)
    distance = (moved.points - keypoints.target).norm(dim=2)
    right = moved.valid & (distance <= reach)
    return torch.where(right, (distance / reach).square(), torch.ones_like(distance))


def strong_loss(rows: Tensor, target_cells: Tensor, weights: Tensor, valid: Tensor) -> Tensor:
    """Weighted cross entropy of standardised correlation rows.

    Args:
        rows: (B, K, T) correlation of each source keypoint's cell.
        target_cells: (B, K) index of the true target cell.
        weights: (B, K) from `keypoint_weights`.
        valid: (B, K) bool, False for padding.

    Returns:
        scalar: sum over a pair's keypoints / their number, mean over the pairs.
    """
    deviation = rows.std(dim=2, keepdim=True).detach()
    deviation = torch.where(deviation == 0, torch.ones_like(deviation), deviation)
    standardised = (rows - rows.mean(dim=2, keepdim=True)) / deviation
    probability = standardised.softmax(dim=2).gather(2, target_cells.unsqueeze(2)).squeeze(2)
    cross_entropy = -(probability + TINY).log() * weights * valid
    return (cross_entropy.sum(dim=1) / valid.sum(dim=1)).mean()


def supervise_weakly(
    network: HyperpixelNetwork,
    source: ImageFeatures,
    target: ImageFeatures,
    num_positives: int,
    config: SupervisionConfig,
    uniform: Tensor,
) -> Objective:
    """The weak objective of B pairs, the first `num_positives` of one category each, the rest of two."""
    output = network.correlate(source, target, uniform)
    entropy = correlation_entropy(output.correlation)
    loss = weak_loss(entropy[:num_positives], entropy[num_positives:])
    return _with_selection_rate("entropy_ratio", loss, output.selection, config)


def negative_pairs(categories: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of different categories: (index of the source, index of the target), targets rolled by one."""
    rolled = [*range(1, len(categories)), 0] if len(categories) > 1 else []
    return [(s, t) for s, t in enumerate(rolled) if categories[s] != categories[t]]


def correlation_entropy(correlation: Tensor) -> Tensor:
    """(B,) mean entropy in bits of the matches of each cell, in both directions, squeezed to 15 x 15 maps."""
    filtered = mutual_filter(correlation)
    of_source = filtered.reshape(*filtered.shape[:2], GRID_SIDE, GRID_SIDE)
    of_target = filtered.mT.reshape(*filtered.shape[:2], GRID_SIDE, GRID_SIDE)
    return (_entropy(of_source) + _entropy(of_target)) / 2


def _entropy(maps: Tensor) -> Tensor:
    size = (SQUEEZED_SIDE, SQUEEZED_SIDE)
    squeezed = F.interpolate(maps, size, mode="bilinear", align_corners=True).flatten(2)
    total = squeezed.sum(dim=2, keepdim=True)
    share = squeezed / torch.where(total == 0, torch.ones_like(total), total)
    share = torch.where(share == 0, torch.full_like(share, TINY), share)
    return -(share * share.log2()).sum(dim=2).mean(dim=1)


def weak_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """Mean entropy of pairs of one category over that of pairs of two; the latter is 1 when there are none."""
    return positive.mean() / (negative.mean() if len(negative) else 1.0)


def selection_rate_loss(gates: Tensor, rate: float) -> Tensor:
    """Sum over layers of (share of the batch's pairs that select the layer - rate)^2, from (B, L) gates."""
    return (gates.mean(dim=0) - rate).square().sum()


def _with_selection_rate(name: str, matching: Tensor, gates: Tensor, config: SupervisionConfig) -> Objective:
    selection = selection_rate_loss(gates, config.selection_rate)
    loss = matching + selection
    terms = {"loss": loss.item(), name: matching.item(), "selection_rate_term": selection.item()}
    return Objective(loss, terms, gates.detach())
