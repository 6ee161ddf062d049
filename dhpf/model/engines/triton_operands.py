"""Input tables of the GPU kernels: addresses of features, and interpolation of coarse products to the grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate

import torch
import triton
from torch import Tensor

from dhpf.config import GRID_SIDE
from dhpf.frame import interpolation_matrix, interpolation_taps
from dhpf.model.engines.engine import MatchProblem
from dhpf.model.engines.triton_kernels import CHANNELS_AT_ONCE, CellVotes, Channels, Coarse, Lengths

BYTES_OF_FLOAT = 4
SMALLEST_TILE = 16
"""Least size of each of the three dimensions of a product in a kernel."""


@dataclass(frozen=True)
class Operands:
    """All that the kernels read for B pairs.

    Attributes:
        grid_side: G, cells per side of the grid; N = G * G.
        fine: layers of the grid's side; None where no layer has it.
        coarse_channels: layers of each coarser side, ascending.
        coarse: their products, to be filled.
        lengths: of the hyperfeatures.
        votes: how much those of each cell count.
        maps: the features; kernels know only their addresses, so they are held here.
    """

    grid_side: int
    fine: Channels | None
    coarse_channels: dict[int, Channels]
    coarse: Coarse
    lengths: Lengths
    votes: CellVotes
    maps: tuple[Tensor, ...]

    @property
    def padded_side(self) -> int:
        """Side of a tile."""
        return padded(self.grid_side)


def in_single_precision(problem: MatchProblem) -> MatchProblem:
    """The problem with maps, lengths and votes as the kernels read them."""
    source, target = problem.source_maps, problem.target_maps
    as_read = tuple(m.float().contiguous() for m in source)
    return replace(
        problem,
        source_maps=as_read,
        target_maps=as_read if target is source else tuple(m.float().contiguous() for m in target),
        source_lengths=problem.source_lengths.float().contiguous(),
        target_lengths=problem.target_lengths.float().contiguous(),
        source_votes=problem.source_votes.float().contiguous(),
        target_votes=problem.target_votes.float().contiguous(),
    )


def operands(problem: MatchProblem, grid_side: int = GRID_SIDE) -> Operands:
    """The tables of a problem `in_single_precision`; grid sides other than 60 are for small examples in tests."""
    device = problem.selected.device
    pairs = torch.tensor(problem.pairs, dtype=torch.int32, device=device).view(-1, 2)
    source, target = problem.source_maps, problem.target_maps
    by_side = {
        side: _channels(side, source, target, pairs, problem.selected) for side in sorted({m.shape[-1] for m in source})
    }
    fine = by_side.pop(grid_side, None)
    plan = coarse_plan(tuple(by_side), grid_side, device)
    coarse = Coarse(
        torch.empty(len(pairs), plan.cells, grid_side * grid_side, device=device),
        plan.cells,
        *(plan.first, plan.side, plan.lower, plan.upper_weight),
    )
    lengths = Lengths(problem.source_lengths, problem.target_lengths)
    votes = CellVotes(problem.source_votes, problem.target_votes)
    if not votes.source.numel():
        votes = CellVotes(torch.ones_like(lengths.source), torch.ones_like(lengths.target))
    return Operands(grid_side, fine, by_side, coarse, lengths, votes, (*source, *target))


def _channels(
    side: int, source: tuple[Tensor, ...], target: tuple[Tensor, ...], pairs: Tensor, selected: Tensor
) -> Channels:
    """The channels of the layers of one side."""
    layers = tuple(
        (layer, left.data_ptr(), right.data_ptr(), left.shape[1])
        for layer, (left, right) in enumerate(zip(source, target, strict=True))
        if left.shape[-1] == side
    )
    chunks, layer_of_chunk = _chunk_table(layers, side, selected.device)
    compared = selected[:, layer_of_chunk]
    order = compared.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    schedule = torch.cat([compared.sum(dim=1, keepdim=True), order], dim=1).to(torch.int32)
    return Channels(pairs, chunks, schedule, schedule.shape[1])


@lru_cache(maxsize=64)
def _chunk_table(
    layers: tuple[tuple[int, int, int, int], ...], side: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """`Channels.chunks` and the layer of each; the batches of a block of images find it ready.

    Args:
        layers: of each layer its number, the addresses of its source and target maps, and its channels. Maps of other
            images at the same address have the same table.
    """
    rows, layer_of_chunk = [], []
    for layer, source, target, count in layers:
        for first in range(0, count, CHANNELS_AT_ONCE):
            skipped = first * side * side * BYTES_OF_FLOAT
            rows.append((source + skipped, target + skipped, count * side * side, min(CHANNELS_AT_ONCE, count - first)))
            layer_of_chunk.append(layer)
    chunks = torch.tensor(rows, dtype=torch.int64, device=device).view(-1, 4)
    return chunks, torch.tensor(layer_of_chunk, device=device)


@dataclass(frozen=True)
class CoarsePlan:
    """The parts of `Coarse` that depend on sides alone."""

    cells: int
    first: Tensor
    side: Tensor
    lower: Tensor
    upper_weight: Tensor


@lru_cache(maxsize=16)
def coarse_plan(sides: tuple[int, ...], grid_side: int, device: torch.device) -> CoarsePlan:
    """The plan by which products of maps of these sides, each below the grid's, are interpolated to the grid."""
    cells = [side * side for side in sides]
    taps = [interpolation_taps(interpolation_matrix(side, torch.empty(0), grid_side)) for side in sides]
    return CoarsePlan(
        sum(cells),
        torch.tensor([0, *accumulate(cells)][: len(cells)], dtype=torch.int32, device=device),
        torch.tensor(sides, dtype=torch.int32, device=device),
        torch.tensor([[lower for lower, _ in of_side] for of_side in taps], dtype=torch.int32, device=device),
        torch.tensor([[weight for _, weight in of_side] for of_side in taps], dtype=torch.float32, device=device),
    )


def padded(length: int) -> int:
    """The length of the smallest tile that holds this many elements."""
    return max(SMALLEST_TILE, int(triton.next_power_of_2(length)))
