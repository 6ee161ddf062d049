"""The engine for CUDA GPUs: many pairs at once, and no N x N matrix anywhere (see triton_kernels)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
import triton
from torch import Tensor

from dhpf.config import GRID_SIDE
from dhpf.model.best_cells import BestCells
from dhpf.model.engines import triton_kernels as kernels
from dhpf.model.engines.problem import MatchProblem
from dhpf.model.engines.triton_operands import Operands, operands, padded

Precision = Literal["ieee", "tf32x3"]
"""How a GPU multiplies float32: as such, or on its matrix units as three products of shorter numbers."""

WORKSPACE_BYTES = 2**30
"""What intermediate results of the pairs that are matched together may take."""
CELLS_AT_ONCE = 64
"""Source cells of a coarse map in one program."""


class TritonEngine:
    """Matches pairs on a CUDA GPU; on a CPU only where Triton interprets its kernels (TRITON_INTERPRET=1), for tests.

    Args:
        grid_side: cells per side of the problems' grid; another than 60 is for small examples.
    """

    def __init__(self, precision: Precision = "ieee", grid_side: int = GRID_SIDE) -> None:
        self._precision = precision
        self._grid_side = grid_side

    @torch.no_grad()
    def __call__(self, problem: MatchProblem) -> BestCells:
        sides = {m.shape[-1] for m in problem.source_maps}
        step = max(1, WORKSPACE_BYTES // bytes_per_pair(sides, self._grid_side))
        parts = [_part(problem, slice(first, first + step)) for first in range(0, len(problem.pairs), step)]
        with torch.cuda.device_of(problem.selected):  # type: ignore[no-untyped-call]
            return BestCells.concatenate([self._match(part) for part in parts])

    def _match(self, problem: MatchProblem) -> BestCells:
        of_pairs = operands(problem, self._grid_side)
        constants = problem.exponent, of_pairs.coarse_columns, self._grid_side, of_pairs.padded_side, self._precision
        _fill_coarse_products(of_pairs, self._precision)
        scores = problem.hough.scores(_count_votes(of_pairs, constants))
        return _find_best(of_pairs, scores, problem.wanted, constants)


Constants = tuple[int, int, int, int, Precision]
"""What the kernels over tiles are compiled for, in the order of their parameters."""


def _fill_coarse_products(of_pairs: Operands, precision: Precision) -> None:
    first, column, grid_side, coarse = 0, 0, of_pairs.grid_side, of_pairs.coarse
    for side, channels in of_pairs.coarse_channels.items():
        interpolation = coarse.spread[:grid_side, column : column + side].contiguous()
        programs = side, triton.cdiv(side * side, CELLS_AT_ONCE), len(channels.pairs)
        shape = side, padded(side), CELLS_AT_ONCE, grid_side, of_pairs.padded_side
        kernels.coarse_products[programs](
            channels, interpolation, coarse.products, coarse.size, first, *shape, precision, num_warps=kernels.WARPS
        )
        first, column = first + side**3 * grid_side, column + side


def _count_votes(of_pairs: Operands, constants: Constants) -> Tensor:
    """(B, 2G - 1, 2G - 1) votes per displacement."""
    side, num_pairs = of_pairs.grid_side, len(of_pairs.fine.pairs)
    displacements = 2 * side - 1
    votes = of_pairs.lengths.source.new_zeros(num_pairs, displacements, side, displacements)
    kernels.count_votes[displacements, num_pairs](
        of_pairs.fine, of_pairs.coarse, of_pairs.lengths, votes, *constants, num_warps=kernels.WARPS
    )
    return votes.sum(dim=2)


def _find_best(of_pairs: Operands, scores: Tensor, wanted: Tensor, constants: Constants) -> BestCells:
    """The best cells, from (B, 2G - 1, 2G - 1) scores per displacement and (B, N) wanted cells."""
    inputs = of_pairs.fine, of_pairs.coarse, of_pairs.lengths, scores
    side, num_pairs = of_pairs.grid_side, len(scores)
    value = scores.new_empty(num_pairs, side * side)
    target = torch.empty_like(value, dtype=torch.long)
    column_maxima = scores.new_empty(num_pairs, side, side * side)
    found = value, target, column_maxima
    kernels.find_maxima[side, num_pairs](*inputs, *found, *constants, num_warps=kernels.WARPS)
    column_maximum = column_maxima.amax(dim=1)
    filtered_target, filtered_value = torch.zeros_like(target), torch.zeros_like(value)
    asked = wanted.to(torch.int8), value, column_maximum, filtered_target, filtered_value
    kernels.find_filtered[side, num_pairs](*inputs, *asked, *constants, num_warps=kernels.WARPS)
    return BestCells(target, value, column_maximum, filtered_target, filtered_value, scores)


def bytes_per_pair(sides: set[int], grid_side: int) -> int:
    """What a pair's coarse products, votes and column maxima take."""
    coarse = sum(side**3 * grid_side for side in sides if side < grid_side)
    return 4 * (coarse + (2 * grid_side - 1) ** 2 * grid_side + grid_side**3)


def _part(problem: MatchProblem, pairs: slice) -> MatchProblem:
    """The problem of some of the pairs."""
    of_pairs = ("pairs", "selected", "source_lengths", "target_lengths", "wanted")
    return replace(problem, **{name: getattr(problem, name)[pairs] for name in of_pairs})
