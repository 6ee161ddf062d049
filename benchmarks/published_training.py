"""A training step as the published implementation does it, with its costs in time and memory, for comparison.

Every layer of every pair, selected or not, is brought to 60 x 60, gated, and correlated there with gradient. Votes go
through an (N, bins) matrix per pair. The loss is computed from whole matrices, standardised or filtered. Weak
supervision passes the images of its negative pairs through the backbone again. Arithmetic and order are those of the
published implementation (docs/algorithm.md, sections 3 to 8); the code is our own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.published import PublishedMatcher
from dhpf.config import GRID_SIDE
from dhpf.frame import NUM_CELLS, cell_centres, covering_cells, nearest_cells, transfer_points
from dhpf.model.gates import LayerGates, sample_gates
from dhpf.model.transfer import mutual_filter
from dhpf.supervision import TINY, KeypointBatch


@dataclass(frozen=True)
class PublishedTraining:
    """Training steps with a network's parameters, in training mode."""

    matcher: PublishedMatcher

    def strong_loss(self, source: Tensor, target: Tensor, keypoints: KeypointBatch, uniform: Tensor) -> Tensor:
        """Scalar loss of (B, 3, side, side) images, with (B, L, 2) uniform numbers for the gates' noise."""
        correlation, gates = self.correlate(source, target, uniform)
        with torch.no_grad():
            weights = self._weights(correlation, keypoints)
        centred = correlation - correlation.mean(dim=2, keepdim=True)
        standardised = centred / correlation.std(dim=2, keepdim=True).detach()
        sources, targets = nearest_cells(keypoints.source), nearest_cells(keypoints.target)
        losses = []
        for pair, rows in enumerate(standardised):
            count = int(keypoints.valid[pair].sum())
            share = rows[sources[pair, :count]].softmax(dim=1).gather(1, targets[pair, :count, None])[:, 0]
            losses.append((-(share + TINY).log() * weights[pair, :count]).sum() / count)
        return torch.stack(losses).mean() + _selection_rate(gates)

    def weak_loss(self, source: Tensor, target: Tensor, uniform: Tensor) -> Tensor:
        """Scalar loss of B positive pairs of B categories, and of B negative pairs that are made of the same images."""
        num_pairs = len(source)
        negatives = target.roll(-1, dims=0)
        correlation, gates = self.correlate(torch.cat([source, source]), torch.cat([target, negatives]), uniform)
        filtered = mutual_filter(correlation)
        entropy = (_entropy(filtered) + _entropy(filtered.mT)) / 2
        return entropy[:num_pairs].mean() / entropy[num_pairs:].mean() + _selection_rate(gates)

    def correlate(self, source: Tensor, target: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, N) correlation and (B, L) gates, both with gradient."""
        network, matcher = self.matcher.network, self.matcher
        assert isinstance(network.selector, LayerGates)
        with torch.no_grad():
            left, right = matcher.extract(source), matcher.extract(target)
        logits = [
            gate(F.adaptive_avg_pool2d(s, 1) + F.adaptive_avg_pool2d(t, 1)).flatten(1)
            for gate, s, t in zip(network.selector.gates, left, right, strict=True)
        ]
        gates = sample_gates(torch.stack(logits, dim=1), uniform)
        correlation = source.new_zeros(len(source), NUM_CELLS, NUM_CELLS, dtype=torch.float32)
        norms = [correlation.new_zeros(len(source), NUM_CELLS) for _ in range(2)]
        for layer, (s, t) in enumerate(zip(left, right, strict=True)):
            features = [self._upsampled(m, layer) * gates[:, layer, None, None] for m in (s, t)]
            correlation = correlation + torch.bmm(features[0].transpose(1, 2), features[1])
            norms = [n + f.pow(2).sum(dim=1) for n, f in zip(norms, features, strict=True)]
        lengths = [torch.where(n == 0, torch.full_like(n, 1e-4), n).sqrt() for n in norms]
        cosine = correlation / (torch.bmm(lengths[0].unsqueeze(2), lengths[1].unsqueeze(1)) + 0.001)
        appearance = F.relu(cosine).pow(network.config.appearance_exponent)
        with torch.no_grad():
            scores = torch.stack([self.matcher.scores(one) for one in appearance])
        return appearance * scores, gates

    def _upsampled(self, layer_map: Tensor, layer: int) -> Tensor:
        projected = self.matcher.network.projections[layer](layer_map)
        size = (GRID_SIDE, GRID_SIDE)
        return F.interpolate(projected, size, mode="bilinear", align_corners=True).flatten(2)

    def _weights(self, correlation: Tensor, keypoints: KeypointBatch) -> Tensor:
        best = mutual_filter(correlation).argmax(dim=2)
        covering = covering_cells(keypoints.source) & keypoints.valid.unsqueeze(-1)
        moved, located = transfer_points(keypoints.source, covering, cell_centres(device=best.device)[best])
        reach = 0.1 * keypoints.threshold[:, None]
        distance = (moved - keypoints.target).norm(dim=2)
        return torch.where(located & (distance <= reach), (distance / reach).square(), torch.ones_like(distance))


def _selection_rate(gates: Tensor) -> Tensor:
    return (gates.mean(dim=0) - 0.5).square().sum()


def _entropy(filtered: Tensor) -> Tensor:
    """(B,) mean entropy of (B, N, N) matrices, each taken as N maps that are reduced to 15 x 15."""
    maps = filtered.reshape(*filtered.shape[:2], GRID_SIDE, GRID_SIDE)
    squeezed = F.interpolate(maps, (GRID_SIDE // 4,) * 2, mode="bilinear", align_corners=True).flatten(2)
    total = squeezed.sum(dim=2, keepdim=True)
    share = squeezed / torch.where(total == 0, torch.ones_like(total), total)
    share = torch.where(share == 0, torch.full_like(share, TINY), share)
    return -(share * share.log2()).sum(dim=2).mean(dim=1)
