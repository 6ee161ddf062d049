"""What training minimises: strong supervision by keypoints, weak supervision by category (ALGORITHM section 8).

And a contrastive one by keypoints, or by matches that a pair is sure of: what voting finds, likeness alone shall find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dhpf.config import SupervisionConfig
from dhpf.model.engines.problem import MatchEngine
from dhpf.model.geometry import cell_centres, nearest_cells
from dhpf.model.global_batch import ALONE, TrainingPairs, Workers
from dhpf.model.network import HyperpixelNetwork, ImageFeatures
from dhpf.model.transfer import TransferredPoints, cells_of_points, transfer

TINY = 1e-30

COSINE_SCALE = 15.0
"""What cosines are multiplied by before the softmax of the contrastive loss."""

TRUTH_RADIUS = 5.0
"""Standard deviation in pixels of the frame of the target that the contrastive loss aims at: half of a deep cell."""


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

    @classmethod
    def concatenate(cls, batches: Sequence[KeypointBatch]) -> KeypointBatch:
        """Several batches as one, padded to the most keypoints."""
        most = max(batch.valid.shape[1] for batch in batches)

        def padded(points: Tensor) -> Tensor:
            result = points.new_zeros(len(points), most, *points.shape[2:])
            result[:, : points.shape[1]] = points
            return result

        source, target, valid = (
            torch.cat([padded(getattr(batch, name)) for batch in batches]) for name in ("source", "target", "valid")
        )
        return cls(source, target, valid, torch.cat([batch.threshold for batch in batches]))


@dataclass(frozen=True)
class Objective:
    """A step's loss and what it is made of.

    Attributes:
        loss: scalar, with gradient: this process's share, the sum of which over the processes is the step's loss.
        terms: the step's loss and its parts, as plain numbers, equal in all processes.
        gates: (P, L) kept layers' selection of this process's pairs, negatives included.
        open_shares: (L,) share of the step's pairs, negatives included, that select each layer of the backbone.
    """

    loss: Tensor
    terms: dict[str, float]
    gates: Tensor
    open_shares: Tensor


def supervise_strongly(
    network: HyperpixelNetwork,
    source: ImageFeatures,
    target: ImageFeatures,
    keypoints: KeypointBatch,
    config: SupervisionConfig,
    uniform: Tensor,
    engine: MatchEngine,
    pairs: TrainingPairs | None = None,
    workers: Workers = ALONE,
) -> Objective:
    """The strong objective of a step, of whose pairs this process holds B.

    The whole correlation is needed only for votes and for the verdict on the current transfer, which carry no
    gradient; the gradient goes through the rows of the keypoints' cells alone.

    Args:
        source, target: `embed_step` of the B source and the B target images.
        uniform: (B, L, 2) draws that make the gates' noise.
        engine: matches, for the part without gradient.
        pairs: default: B pairs of this process alone.
    """
    pairs = TrainingPairs.aligned(len(source)) if pairs is None else pairs
    gates = network.select_step(source, target, pairs, uniform, workers)
    wanted = cells_of_points(keypoints.source, keypoints.valid)
    found = network.match_selected(source, target, [(n, n) for n in range(len(source))], gates, wanted, engine)
    moved = transfer(found, keypoints.source, keypoints.valid)
    weights = keypoint_weights(moved, keypoints, config.alpha)
    source_cells, target_cells = nearest_cells(keypoints.source), nearest_cells(keypoints.target)
    rows = network.correlate_cells(source, target, gates, source_cells, found.geometric_scores)
    loss = strong_loss(rows, target_cells, weights, keypoints.valid)
    matching = _mean_over_pairs(loss, pairs.weights, workers)
    return _with_selection_rate("cross_entropy", matching, gates, network, config, pairs, workers)


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
        (B,): sum over a pair's keypoints / their number.
    """
    deviation = rows.std(dim=2, keepdim=True).detach()
    deviation = torch.where(deviation == 0, torch.ones_like(deviation), deviation)
    standardised = (rows - rows.mean(dim=2, keepdim=True)) / deviation
    probability = standardised.softmax(dim=2).gather(2, target_cells.unsqueeze(2)).squeeze(2)
    cross_entropy = -(probability + TINY).log() * weights * valid
    return cross_entropy.sum(dim=1) / valid.sum(dim=1)


def supervise_contrastively(
    network: HyperpixelNetwork,
    source: ImageFeatures,
    target: ImageFeatures,
    points: KeypointBatch,
    config: SupervisionConfig,
    uniform: Tensor,
    pairs: TrainingPairs | None = None,
    workers: Workers = ALONE,
) -> Objective:
    """The contrastive objective of a step, of whose pairs this process holds B; no votes and no whole matrix in it.

    Args:
        source, target: `embed_step` of the B source and the B target images.
        points: keypoints, or matches that stand for them; a pair may have none. Thresholds are not read.
        uniform: (B, L, 2) draws that make the gates' noise.
        pairs: default: B pairs of this process alone.
    """
    pairs = TrainingPairs.aligned(len(source)) if pairs is None else pairs
    gates = network.select_step(source, target, pairs, uniform, workers)
    rows = network.cosines(source, target, gates, nearest_cells(points.source))
    loss = contrastive_loss(rows, points.target, points.valid)
    matching = _mean_over_pairs(loss, pairs.weights.to(loss) * points.valid.any(dim=1), workers)
    return _with_selection_rate("contrastive", matching, gates, network, config, pairs, workers)


def contrastive_loss(cosines: Tensor, target_points: Tensor, valid: Tensor) -> Tensor:
    """Cross entropy of each row's softmax against a Gaussian around the true point, which is finer than a cell.

    Args:
        cosines: (B, K, T) of each source point's cell.
        target_points: (B, K, 2) true target points in the frame.
        valid: (B, K) bool, False for padding.

    Returns:
        (B,): mean over a pair's points; 0 for a pair without any.
    """
    centres = cell_centres(cosines.dtype, cosines.device)
    squares = (target_points.unsqueeze(2) - centres).square().sum(dim=3)
    truth = (-squares / (2 * TRUTH_RADIUS**2)).softmax(dim=2)
    cross_entropy = -(truth * (COSINE_SCALE * cosines).log_softmax(dim=2)).sum(dim=2)
    return (cross_entropy * valid).sum(dim=1) / valid.sum(dim=1).clamp(min=1)


def supervise_weakly(
    network: HyperpixelNetwork,
    source: ImageFeatures,
    target: ImageFeatures,
    pairs: TrainingPairs,
    config: SupervisionConfig,
    uniform: Tensor,
    workers: Workers = ALONE,
) -> Objective:
    """The weak objective of a step: positive pairs are of one category each, negative ones of two.

    Args:
        source, target: `embed_step` of this process's images.
        uniform: (P, L, 2) draws that make the gates' noise.
    """
    gates = network.select_step(source, target, pairs, uniform, workers)
    entropy = network.match_entropy(source, target, pairs, gates)
    weights, positive = pairs.weights.to(entropy), torch.arange(len(entropy)) < pairs.num_positive
    weights = torch.stack([weights * positive.to(weights), weights * (~positive).to(weights)])
    sums = workers.add_up(torch.cat([weights @ entropy, weights.sum(dim=1)]).double())
    matching = weak_loss(sums[:2], sums[2:]).to(entropy.dtype)
    return _with_selection_rate("entropy_ratio", matching, gates, network, config, pairs, workers)


def negative_pairs(categories: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of different categories: (index of the source, index of the target), targets rolled by one."""
    rolled = [*range(1, len(categories)), 0] if len(categories) > 1 else []
    return [(s, t) for s, t in enumerate(rolled) if categories[s] != categories[t]]


def weak_loss(sums: Tensor, counts: Tensor) -> Tensor:
    """Mean entropy of pairs of one category over that of pairs of two; the latter is 1 when there are none.

    Args:
        sums, counts: (2,) summed entropy and number, of positive and of negative pairs.
    """
    positive, negative = sums / counts.clamp(min=1)
    loss: Tensor = positive / negative if counts[1] else positive
    return loss


def selection_rate_loss(open_shares: Tensor, rate: float) -> Tensor:
    """Sum over layers of (share of the step's pairs that select the layer - rate)^2, from (L,) shares."""
    return (open_shares - rate).square().sum()


def _mean_over_pairs(loss: Tensor, weights: Tensor, workers: Workers) -> Tensor:
    """Mean of the (B,) losses of all processes' pairs, each counted (B,) `weights` times; 0 when none counts."""
    weights = weights.to(loss)
    total, num_pairs = workers.add_up(torch.stack([weights @ loss, weights.sum()]).double())
    mean: Tensor = (total / num_pairs.clamp(min=1)).to(loss.dtype)
    return mean


def _with_selection_rate(
    name: str,
    matching: Tensor,
    gates: Tensor,
    network: HyperpixelNetwork,
    config: SupervisionConfig,
    pairs: TrainingPairs,
    workers: Workers,
) -> Objective:
    """Args: matching: the loss of the whole step, equal in all processes."""
    weights = pairs.weights.to(gates)
    sums = workers.add_up(torch.cat([weights @ gates, weights.sum()[None]]).double())
    shares = sums[:-1] / sums[-1]
    selection = selection_rate_loss(shares, config.selection_rate).to(matching.dtype)
    loss = matching + config.selection_weight * selection
    terms = {"loss": loss.item(), name: matching.item(), "selection_rate_term": selection.item()}
    # Every process holds the whole loss; gradients are added up over the processes.
    open_shares = network.on_all_layers(shares.detach()[None])[0]
    return Objective(loss / workers.count, terms, gates.detach(), open_shares)
