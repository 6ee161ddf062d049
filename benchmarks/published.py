"""Matches a pair as the published implementation does, with its costs in time and memory, for comparison.

Every layer of both images is brought to 60 x 60 and correlated there, layer after layer, into one N x N matrix; Hough
votes go through an (N, bins) matrix; the filtered matrix gives every source cell its target. Arithmetic and order are
those of the published implementation (docs/algorithm.md, sections 3 to 7); the code is our own.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dhpf.config import FRAME_SIDE, GRID_SIDE
from dhpf.frame import NUM_CELLS, cell_centres
from dhpf.model.backbone import Backbone
from dhpf.model.gates import LayerGates, open_gates
from dhpf.model.hough import bin_layout, gaussian
from dhpf.model.network import HyperpixelNetwork


@dataclass(frozen=True)
class PublishedMatcher:
    """Holds what the published implementation keeps between pairs: the bin of each of the N x N matches."""

    network: HyperpixelNetwork
    backbone: Backbone
    bins: Tensor
    num_bins: int

    @classmethod
    def of(cls, network: HyperpixelNetwork) -> PublishedMatcher:
        """A matcher that computes in the published way with the parameters of our network."""
        size, per_axis = bin_layout(network.config.hough_bins)
        device = network.hough.displacement_bins.device
        centres = cell_centres(device=device)
        offset = FRAME_SIDE - centres[:, None, :] + centres[None, :, :]
        axis = torch.floor(offset / size).long()
        backbone = copy.deepcopy(network.backbone).to(memory_format=torch.contiguous_format)
        return cls(network, backbone, axis[..., 0] + axis[..., 1] * per_axis, per_axis * per_axis)

    @torch.no_grad()
    def cold(self, source: Tensor, target: Tensor) -> Tensor:
        """`from_maps` of two (1, 3, side, side) images, each passed through the backbone on its own."""
        return self.from_maps(self.extract(source), self.extract(target))

    @torch.no_grad()
    def extract(self, image: Tensor) -> list[Tensor]:
        """The backbone's maps in torch's default memory layout."""
        maps: list[Tensor] = []
        output = (image.to(self.backbone.mean.dtype) / 255 - self.backbone.mean) / self.backbone.std
        for layer in self.backbone.layers.children():
            output = layer(output)
            maps.append(output)
        return maps

    @torch.no_grad()
    def from_maps(self, source: list[Tensor], target: list[Tensor], selected: Tensor | None = None) -> Tensor:
        """(N,) target cell of each source cell, from the backbone's maps of one pair.

        Args:
            selected: (L,) bool layers to use instead of those that the gates open.
        """
        if selected is None:
            selected = self.selection(source, target)
        return self.transfer(self.vote(self.appearance(source, target, selected)))

    def selection(self, source: list[Tensor], target: list[Tensor]) -> Tensor:
        """(L,) bool layers whose gates open; layer 0 when none does."""
        selector = self.network.selector
        assert isinstance(selector, LayerGates)
        logits = []
        for gate, s, t in zip(selector.gates, source, target, strict=True):
            pooled = F.adaptive_avg_pool2d(s, 1) + F.adaptive_avg_pool2d(t, 1)
            logits.append(gate(pooled).flatten(1))
        opened = open_gates(torch.stack(logits, dim=1))[0].bool()
        if not opened.any():
            opened[0] = True
        return opened

    def appearance(self, source: list[Tensor], target: list[Tensor], selected: Tensor) -> Tensor:
        """(N, N) appearance, every selected layer correlated at 60 x 60."""
        correlation = source[0].new_zeros(NUM_CELLS, NUM_CELLS)
        source_norm, target_norm = source[0].new_zeros(NUM_CELLS), source[0].new_zeros(NUM_CELLS)
        for layer in selected.nonzero().flatten().tolist():
            left = self._upsampled(source[layer], layer)
            right = self._upsampled(target[layer], layer)
            correlation += torch.bmm(left.transpose(1, 2), right)[0]
            source_norm += left.pow(2).sum(dim=1)[0]
            target_norm += right.pow(2).sum(dim=1)[0]
        lengths = torch.mm(source_norm.sqrt()[:, None], target_norm.sqrt()[None, :]) + 0.001
        return F.relu(correlation / lengths).pow(self.network.config.appearance_exponent)

    def _upsampled(self, layer_map: Tensor, layer: int) -> Tensor:
        projected = self.network.projections[layer](layer_map)
        size = (GRID_SIDE, GRID_SIDE)
        return F.interpolate(projected, size, mode="bilinear", align_corners=True).flatten(2)

    def vote(self, appearance: Tensor) -> Tensor:
        """(N, N) correlation: appearance times geometric scores."""
        return appearance * self.scores(appearance)

    def scores(self, appearance: Tensor) -> Tensor:
        """(N, N) smoothed votes of each match's bin."""
        votes = appearance.new_zeros(NUM_CELLS, self.num_bins)
        rows = torch.arange(NUM_CELLS, device=appearance.device)[:, None] * self.num_bins
        votes.view(-1).index_add_(0, (self.bins + rows).view(-1), appearance.reshape(-1))
        side = int(self.num_bins**0.5)
        space = votes.sum(dim=0).view(1, 1, side, side)
        bell = gaussian().to(space)
        smoothed = F.conv2d(space, torch.outer(bell, bell)[None, None], padding=3).view(-1)
        return smoothed.index_select(0, self.bins.view(-1)).view_as(appearance)

    def transfer(self, correlation: Tensor) -> Tensor:
        """(N,) target cell of each source cell after the mutual nearest neighbour filter of the whole matrix."""
        row_maximum = correlation.max(dim=1, keepdim=True).values
        column_maximum = correlation.max(dim=0, keepdim=True).values
        row_maximum = torch.where(row_maximum == 0, torch.full_like(row_maximum, 1e-30), row_maximum)
        column_maximum = torch.where(column_maximum == 0, torch.full_like(column_maximum, 1e-30), column_maximum)
        filtered = correlation * (correlation / row_maximum) * (correlation / column_maximum)
        return filtered.max(dim=1).indices
