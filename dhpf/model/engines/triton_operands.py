"""What the GPU kernels read: tables that say where features lie, and how coarse products come to the grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from dhpf.config import GRID_SIDE
from dhpf.model.engines.problem import MatchProblem
from dhpf.model.engines.triton_kernels import CHANNELS_AT_ONCE, COLUMNS_AT_ONCE, Channels, Coarse, Lengths
from dhpf.model.geometry import interpolation_matrix, interpolation_taps

SMALLEST_TILE = 16
"""What a product in a kernel needs of each of its three lengths."""


@dataclass(frozen=True)
class Operands:
    """What the kernels read of B pairs.

    Attributes:
        grid_side: G, cells per side of the grid; N = G * G.
        fine: layers of the grid's side.
        coarse_channels: layers of each coarser side.
        coarse: their products, to be filled.
        lengths: of the hyperfeatures.
        maps: the features; kernels know only their addresses, so they are held here.
    """

    grid_side: int
    fine: Channels
    coarse_channels: dict[int, Channels]
    coarse: Coarse
    lengths: Lengths
    maps: tuple[Tensor, ...]

    @property
    def padded_side(self) -> int:
        """Side of a tile."""
        return padded(self.grid_side)

    @property
    def coarse_columns(self) -> int:
        """Columns of the coarse maps of all sides together, padding included."""
        return len(self.coarse.first)


def operands(problem: MatchProblem, grid_side: int = GRID_SIDE) -> Operands:
    """The tables of a problem; another grid side than 60 is for small examples."""
    device = problem.selected.device
    pairs = torch.tensor(problem.pairs, dtype=torch.int32, device=device).view(-1, 2)
    source = tuple(m.float().contiguous() for m in problem.source_maps)
    target = tuple(m.float().contiguous() for m in problem.target_maps)
    sides = sorted({grid_side, *(m.shape[-1] for m in source)})
    by_side = {side: _channels(side, source, target, pairs, problem.selected) for side in sides}
    fine = by_side.pop(grid_side)
    plan = coarse_plan(tuple(by_side), grid_side)
    coarse = Coarse(
        torch.empty(len(pairs), plan.size, device=device),
        plan.size,
        *(getattr(plan, name).to(device) for name in ("first", "side", "lower", "upper_weight", "spread")),
    )
    lengths = Lengths(problem.source_lengths.float().contiguous(), problem.target_lengths.float().contiguous())
    return Operands(grid_side, fine, by_side, coarse, lengths, (*source, *target))


def _channels(
    side: int, source: tuple[Tensor, ...], target: tuple[Tensor, ...], pairs: Tensor, selected: Tensor
) -> Channels:
    """The channels of the layers of one side."""
    rows, layer_of_chunk = [], []
    for layer, (left, right) in enumerate(zip(source, target, strict=True)):
        if left.shape[-1] != side:
            continue
        count, cells = left.shape[1], side * side
        for first in range(0, count, CHANNELS_AT_ONCE):
            skipped = first * cells * left.element_size()
            address = left.data_ptr() + skipped, right.data_ptr() + skipped
            rows.append((*address, count * cells, min(CHANNELS_AT_ONCE, count - first)))
            layer_of_chunk.append(layer)
    chunks = torch.tensor(rows, dtype=torch.int64, device=selected.device).view(-1, 4)
    compared = selected[:, layer_of_chunk]
    order = compared.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    schedule = torch.cat([compared.sum(dim=1, keepdim=True), order], dim=1).to(torch.int32)
    return Channels(pairs, chunks, schedule, schedule.shape[1])


@dataclass(frozen=True)
class CoarsePlan:
    """The parts of `Coarse` that depend on sides alone, on the CPU."""

    size: int
    first: Tensor
    side: Tensor
    lower: Tensor
    upper_weight: Tensor
    spread: Tensor


@lru_cache(maxsize=16)
def coarse_plan(sides: tuple[int, ...], grid_side: int) -> CoarsePlan:
    """How products of maps of these sides, each below the grid's, come to the grid."""
    first, side, lower, weight, spread = [], [], [], [], [torch.zeros(grid_side, 0)]
    size = 0
    for s in sides:
        matrix = interpolation_matrix(s, torch.empty(0), grid_side)
        taps = interpolation_taps(matrix)
        for column in range(s):
            first.append(size + column * s * grid_side)
            side.append(s)
            lower.append([tap[0] for tap in taps])
            weight.append([tap[1] for tap in taps])
        spread.append(matrix)
        size += s**3 * grid_side
    missing = -len(side) % COLUMNS_AT_ONCE

    def table(rows: list[list[int]] | list[list[float]], dtype: torch.dtype) -> Tensor:
        """(columns, G) -> (G, columns and padding)."""
        return F.pad(torch.tensor(rows, dtype=dtype).view(-1, grid_side).T, (0, missing)).contiguous()

    return CoarsePlan(
        size,
        F.pad(torch.tensor(first, dtype=torch.int32), (0, missing)),
        F.pad(torch.tensor(side, dtype=torch.int32), (0, missing)),
        table(lower, torch.int32),
        table(weight, torch.float32),
        F.pad(torch.cat(spread, dim=1), (0, missing, 0, padded(grid_side) - grid_side)).contiguous(),
    )


def padded(length: int) -> int:
    """The tile length that holds so many elements."""
    return max(SMALLEST_TILE, int(triton.next_power_of_2(length)))
