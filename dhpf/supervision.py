"""Training objectives, one for each kind of supervision (docs/algorithm.md, section 8).

Strong supervision learns from keypoints, weak supervision from categories alone. Contrastive supervision, which is not
in the paper, trains appearance without Hough votes to find keypoints or, where a pair has none, pseudo-labels. A kind
is one function over a `Step` and one entry of SUPERVISIONS, with its name in dhpf.config.SupervisionName.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from dhpf.config import SupervisionConfig, SupervisionName
from dhpf.frame import cell_centres, nearest_cells
from dhpf.model.engines.engine import MatchEngine
from dhpf.model.features import ImageFeatures
from dhpf.model.global_batch import ALONE, TrainingPairs, Workers
from dhpf.model.network import HyperpixelNetwork
from dhpf.model.training_step import correlate_cells, cosines_at, match_entropies
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


@dataclass(frozen=True)
class Step:
    """One process's share of a training step: all that an objective is computed from.

    Attributes:
        network: in training mode.
        config: of the supervision.
        source, target: `embed_step` of this process's images.
        pairs: which of them go together; where there are keypoints, source n goes with target n.
        uniform: (P, L, 2) draws from [0, 1) that make the gates' noise.
        engine: matches, for what needs no gradient.
        keypoints: of the positive pairs, on the network's device; or matches that stand for them; None where the kind
            of supervision asks for none.
        workers: the processes that share the step.
    """

    network: HyperpixelNetwork
    config: SupervisionConfig
    source: ImageFeatures
    target: ImageFeatures
    pairs: TrainingPairs
    uniform: Tensor
    engine: MatchEngine
    keypoints: KeypointBatch | None = None
    workers: Workers = ALONE

    def gates(self) -> Tensor:
        """(P, L) gates of the pairs, with gradient; called once, for batch normalisation follows the step."""
        activations = self.source.gate_activations, self.target.gate_activations
        return self.network.selector.decide_step(*activations, self.pairs, self.uniform, self.workers)

    def points(self) -> KeypointBatch:
        """The keypoints, of a kind that asks for them."""
        assert self.keypoints is not None
        return self.keypoints


def supervise_strongly(step: Step) -> Objective:
    """The strong objective: the correlation's rows at keypoints shall point at the true target cells.

    The whole correlation is needed only for votes and for the verdict on the current transfer, which carry no
    gradient; the gradient goes through the rows of the keypoints' cells alone.
    """
    network, source, target, keypoints = step.network, step.source, step.target, step.points()
    gates = step.gates()
    wanted = cells_of_points(keypoints.source, keypoints.valid)
    aligned = [(n, n) for n in range(len(source))]
    found = network.match_selected(source, target, aligned, gates, wanted, step.engine)
    moved = transfer(found, keypoints.source, keypoints.valid)
    weights = keypoint_weights(moved, keypoints, step.config.alpha)
    source_cells, target_cells = nearest_cells(keypoints.source), nearest_cells(keypoints.target)
    rows = correlate_cells(network, source, target, gates, source_cells, found.geometric_scores)
    loss = strong_loss(rows, target_cells, weights, keypoints.valid)
    return _with_selection_rate("cross_entropy", _mean_over_pairs(loss, step.pairs.weights, step), gates, step)


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


def supervise_contrastively(step: Step) -> Objective:
    """The contrastive objective: likeness alone shall point at the truth; no votes and no whole matrix in it.

    A pair may have no points; thresholds are not read.
    """
    points, gates = step.points(), step.gates()
    rows = cosines_at(step.network, step.source, step.target, gates, nearest_cells(points.source))
    loss = contrastive_loss(rows, points.target, points.valid)
    weights = step.pairs.weights.to(loss) * points.valid.any(dim=1)
    return _with_selection_rate("contrastive", _mean_over_pairs(loss, weights, step), gates, step)


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


def supervise_weakly(step: Step) -> Objective:
    """The weak objective: matches of pairs of one category shall be more decided than those of pairs of two."""
    pairs, gates = step.pairs, step.gates()
    entropy = match_entropies(step.network, step.source, step.target, pairs, gates)
    weights, positive = pairs.weights.to(entropy), torch.arange(len(entropy)) < pairs.num_positive
    weights = torch.stack([weights * positive.to(weights), weights * (~positive).to(weights)])
    sums = step.workers.add_up(torch.cat([weights @ entropy, weights.sum(dim=1)]).double())
    matching = weak_loss(sums[:2], sums[2:]).to(entropy.dtype)
    return _with_selection_rate("entropy_ratio", matching, gates, step)


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


def _mean_over_pairs(loss: Tensor, weights: Tensor, step: Step) -> Tensor:
    """Mean of the (B,) losses of all processes' pairs, each counted (B,) `weights` times; 0 when none counts."""
    weights = weights.to(loss)
    total, num_pairs = step.workers.add_up(torch.stack([weights @ loss, weights.sum()]).double())
    mean: Tensor = (total / num_pairs.clamp(min=1)).to(loss.dtype)
    return mean


def _with_selection_rate(name: str, matching: Tensor, gates: Tensor, step: Step) -> Objective:
    """Args: matching: the loss of the whole step, equal in all processes."""
    weights, config = step.pairs.weights.to(gates), step.config
    sums = step.workers.add_up(torch.cat([weights @ gates, weights.sum()[None]]).double())
    shares = sums[:-1] / sums[-1]
    selection = selection_rate_loss(shares, config.selection_rate).to(matching.dtype)
    loss = matching + config.selection_weight * selection
    terms = {"loss": loss.item(), name: matching.item(), "selection_rate_term": selection.item()}
    # Every process holds the whole loss; gradients are added up over the processes.
    open_shares = step.network.on_all_layers(shares.detach()[None])[0]
    return Objective(loss / step.workers.count, terms, gates.detach(), open_shares)


@dataclass(frozen=True)
class Supervision:
    """A kind of supervision.

    Attributes:
        objective: of a step.
        points: what it learns from: the pairs' keypoints, which each must have; keypoints where a pair has some and
            else the matches that its images' own maps agree on; or nothing but the pairs' categories.
        has_negatives: whether pairs of different categories are made of a step's images besides.
    """

    objective: Callable[[Step], Objective]
    points: Literal["keypoints", "keypoints or matches", "none"]
    has_negatives: bool = False


SUPERVISIONS: Mapping[SupervisionName, Supervision] = MappingProxyType(
    {
        "strong": Supervision(supervise_strongly, "keypoints"),
        "weak": Supervision(supervise_weakly, "none", has_negatives=True),
        "contrastive": Supervision(supervise_contrastively, "keypoints or matches"),
    }
)
