"""Regularized Hough matching: matches that agree on a displacement strengthen each other.

Votes, bins and smoothing: docs/algorithm.md, section 6. A match's bin depends only on its displacement in cells (dy,
dx), each in -59 .. 59, so votes are first added up per displacement (119 x 119) and only then put into bins; scores
go back the same way. No gradient flows through any of it.

Both binning and the Gaussian are separable: products with one small matrix per axis. They are taken in float64, so that
the order of additions and the reduced precision of a GPU's convolutions do not change float32 results.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dhpf.config import FRAME_SIDE, GRID_SIDE, HoughBinsName
from dhpf.frame import CELL_STRIDE, NUM_CELLS

NUM_DISPLACEMENTS = 2 * GRID_SIDE - 1
NUM_BINS_AIMED_AT = 8192
LEGACY_BINS_PER_AXIS = 97
GAUSSIAN_SIDE = 7
GAUSSIAN_SIGMA = GAUSSIAN_SIDE / 2 / 2.354


def bin_layout(bins: HoughBinsName) -> tuple[float, int]:
    """Bin size in pixels and bins per axis; "legacy" is the layout that integer division gave in torch 1.0."""
    extent = 2 * FRAME_SIDE
    if bins == "legacy":
        return math.sqrt(extent * extent // NUM_BINS_AIMED_AT), LEGACY_BINS_PER_AXIS
    size = math.sqrt(extent * extent / NUM_BINS_AIMED_AT)
    return size, int(extent / size) + 1


class HoughVoting(nn.Module):
    """Computes votes, the smoothed Hough space, and the geometric scores of matches, for a batch of pairs."""

    displacement_bins: Tensor
    membership: Tensor
    smoothing: Tensor

    def __init__(self, bins: HoughBinsName) -> None:
        super().__init__()
        size, self.bins_per_axis = bin_layout(bins)
        displacements = torch.arange(-(GRID_SIDE - 1), GRID_SIDE, dtype=torch.float32) * CELL_STRIDE
        axis = torch.floor((FRAME_SIDE + displacements) / size).long()
        bin_index = axis[:, None] * self.bins_per_axis + axis[None, :]
        self.register_buffer("displacement_bins", bin_index.flatten(), persistent=False)
        membership = axis == torch.arange(self.bins_per_axis)[:, None]
        self.register_buffer("membership", membership.double(), persistent=False)  # (bins, 119) of one axis
        self.register_buffer("smoothing", _smoothing(self.bins_per_axis), persistent=False)

    @torch.no_grad()
    def count_row(
        self, votes: Tensor, block: Tensor, y: int, of_source: Tensor | None = None, of_target: Tensor | None = None
    ) -> None:
        """Adds the matches of source grid row y to (B, 119, 119) votes per displacement [dy, dx].

        Args:
            votes: changed in place.
            block: (B, 60, N) appearance of the row's cells.
            of_source, of_target: (B, N) how much each cell's votes count; all alike where they have no elements.
        """
        batch = block.shape[0]
        if of_source is not None and of_target is not None and of_source.numel():
            cells = slice(y * GRID_SIDE, (y + 1) * GRID_SIDE)
            block = block * of_source[:, cells, None] * of_target[:, None, :]
        width = NUM_DISPLACEMENTS + 1
        # Cell x_s writes its matches at column 0 of a row one longer than the displacements; read with rows of 119,
        # each x_s is shifted by one against the last, so that equal displacements stand above each other.
        padded = block.new_zeros(batch, GRID_SIDE, GRID_SIDE, width)
        matches = block.view(batch, GRID_SIDE, GRID_SIDE, GRID_SIDE)
        padded[..., :GRID_SIDE] = matches.flip(1).transpose(1, 2)
        aligned = padded.flatten(2)[..., : GRID_SIDE * NUM_DISPLACEMENTS]
        per_target_row = aligned.view(batch, GRID_SIDE, GRID_SIDE, NUM_DISPLACEMENTS).sum(dim=2)
        first = GRID_SIDE - 1 - y
        votes[:, first : first + GRID_SIDE] += per_target_row

    @torch.no_grad()
    def vote(self, appearance: Tensor) -> Tensor:
        """(B, 119, 119) votes per displacement of a whole (B, N, N) appearance matrix."""
        votes = appearance.new_zeros(appearance.shape[0], NUM_DISPLACEMENTS, NUM_DISPLACEMENTS)
        for y in range(GRID_SIDE):
            self.count_row(votes, appearance[:, y * GRID_SIDE : (y + 1) * GRID_SIDE], y)
        return votes

    @torch.no_grad()
    def space(self, votes: Tensor) -> Tensor:
        """(B, bins, bins) Hough space [y, x] from votes per displacement, not yet smoothed."""
        membership = self.membership
        return (membership @ votes.to(membership.dtype) @ membership.T).to(votes.dtype)

    @torch.no_grad()
    def smooth(self, space: Tensor) -> Tensor:
        """The Hough space after a 7 x 7 Gaussian with zero padding."""
        smoothing = self.smoothing
        return (smoothing @ space.to(smoothing.dtype) @ smoothing.T).to(space.dtype)

    @torch.no_grad()
    def scores(self, votes: Tensor) -> Tensor:
        """(B, 119, 119) geometric score of each displacement: the smoothed space, looked up."""
        smoothed = self.smooth(self.space(votes)).flatten(1)
        return smoothed[:, self.displacement_bins].view_as(votes)

    @torch.no_grad()
    def score_row(self, scores: Tensor, y: int) -> Tensor:
        """(B, 60, N) geometric score of every match of source grid row y, from scores per displacement."""
        first = GRID_SIDE - 1 - y
        windows = scores[:, first : first + GRID_SIDE].unfold(2, GRID_SIDE, 1)  # (B, y_t, 59 - x_s, x_t)
        return windows.flip(2).transpose(1, 2).reshape(-1, GRID_SIDE, NUM_CELLS)

    @torch.no_grad()
    def scores_at(self, scores: Tensor, cells: Tensor) -> Tensor:
        """(B, K, N) geometric score of every match of (B, K) source cells, on a grid of any side."""
        num_displacements = scores.shape[-1]
        side = (num_displacements + 1) // 2
        axis = torch.arange(side, device=cells.device)
        dy = axis - (cells // side).unsqueeze(-1) + side - 1
        dx = axis - (cells % side).unsqueeze(-1) + side - 1
        index = (dy.unsqueeze(-1) * num_displacements + dx.unsqueeze(-2)).flatten(2)
        return torch.gather(scores.flatten(1), 1, index.flatten(1)).view(index.shape)


def gaussian() -> Tensor:
    """(7,) float64 weights along one axis, with sum 1; docs/algorithm.md, section 6, takes their outer product."""
    axis = torch.arange(GAUSSIAN_SIDE, dtype=torch.float64) - GAUSSIAN_SIDE // 2
    bell = torch.exp(-axis.square() / (2 * GAUSSIAN_SIGMA**2))
    return bell / bell.sum()


def _smoothing(side: int) -> Tensor:
    """(side, side) matrix that smooths one axis, zeros beyond its ends."""
    offset = torch.arange(side) - torch.arange(side)[:, None] + GAUSSIAN_SIDE // 2
    inside = (offset >= 0) & (offset < GAUSSIAN_SIDE)
    return torch.where(inside, gaussian()[offset.clamp(0, GAUSSIAN_SIDE - 1)], 0.0)
