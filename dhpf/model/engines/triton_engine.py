"""The engine for CUDA GPUs: many pairs at once, one N x N matrix for each of them (see triton_kernels)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
import triton
from torch import Tensor

from dhpf.config import GRID_SIDE
from dhpf.model.engines import triton_kernels as kernels
from dhpf.model.engines.engine import BestCells, MatchProblem, Maxima
from dhpf.model.engines.triton_kernels import Channels
from dhpf.model.engines.triton_operands import Operands, in_single_precision, operands, padded
from dhpf.model.hough import HoughVoting
from dhpf.model.readout import cell_points
from dhpf.model.usable_cells import clear_unusable

WORKSPACE_BYTES = 2**31
"""Bytes that the intermediate results of pairs that are matched together may take."""
LARGEST_TILE = 128
"""Cells per side of the tiles in which products are computed; maps with few cells have smaller tiles."""
SMALL_TILE = 32
"""A tile of at most this many cells per side needs fewer warps."""
CELLS_AT_ONCE = 16
"""Source cells of a coarse map in one program that spreads their products."""


class TritonEngine:
    """Matches pairs on a CUDA GPU; on a CPU only where Triton interprets its kernels (TRITON_INTERPRET=1), for tests.

    Args:
        grid_side: cells per side of the grid; values other than 60 are for small examples in tests.
    """

    def __init__(self, grid_side: int = GRID_SIDE) -> None:
        self._grid_side = grid_side

    @torch.no_grad()
    def __call__(self, problem: MatchProblem) -> BestCells:
        problem = in_single_precision(problem)
        sides = {m.shape[-1] for m in problem.source_maps}
        step = max(1, WORKSPACE_BYTES // bytes_per_pair(sides, self._grid_side))
        parts = [_part(problem, slice(first, first + step)) for first in range(0, len(problem.pairs), step)]
        with torch.cuda.device_of(problem.selected):  # type: ignore[no-untyped-call]
            return BestCells.concatenate([self._match(part) for part in parts])

    def _match(self, problem: MatchProblem) -> BestCells:
        of_pairs = operands(problem, self._grid_side)
        num_cells = self._grid_side**2
        # Holds products of the grid's side first; the appearance of all sides then takes their place.
        appearance = of_pairs.lengths.source.new_empty(len(problem.pairs), num_cells, num_cells)
        if of_pairs.fine is not None:
            _multiply(of_pairs.fine, self._grid_side, appearance)
        _fill_coarse(of_pairs)
        scores = problem.hough.scores(_count_votes(of_pairs, appearance, problem.exponent))
        if problem.usable is not None:
            clear_unusable(appearance, problem.usable.source, problem.usable.target)
        found = _find_best(appearance, scores, problem.wanted, self._grid_side)
        return found if problem.readout == "cell" else _read_softly(found, appearance, problem)


def _multiply(channels: Channels, side: int, products: Tensor) -> None:
    """Fills (B, side^2, side^2) products."""
    block = min(LARGEST_TILE, padded(side * side // 4))
    blocks = triton.cdiv(side * side, block)
    warps = kernels.WARPS if block > SMALL_TILE else kernels.ROW_WARPS
    kernels.multiply[blocks, blocks, len(channels.pairs)](channels, products, side * side, block, num_warps=warps)


def _fill_coarse(of_pairs: Operands) -> None:
    coarse, grid = of_pairs.coarse, (of_pairs.grid_side, of_pairs.padded_side)
    for number, (side, channels) in enumerate(of_pairs.coarse_channels.items()):
        products = coarse.products.new_empty(len(channels.pairs), side * side, side * side)
        _multiply(channels, side, products)
        programs = triton.cdiv(side * side, CELLS_AT_ONCE), of_pairs.grid_side, len(channels.pairs)
        kernels.spread_targets[programs](
            coarse, products, number, side, *grid, CELLS_AT_ONCE, num_warps=kernels.ROW_WARPS
        )


def _count_votes(of_pairs: Operands, appearance: Tensor, exponent: int) -> Tensor:
    """(B, 2G - 1, 2G - 1) votes per displacement; appearance takes the place of the (B, N, N) products."""
    side, num_pairs = of_pairs.grid_side, len(appearance)
    displacements = 2 * side - 1
    votes = appearance.new_zeros(num_pairs, displacements, side, displacements)
    has = of_pairs.fine is not None, len(of_pairs.coarse_channels)
    shape = side, of_pairs.padded_side, kernels.COLUMNS_AT_ONCE
    programs = displacements, triton.cdiv(side, kernels.COLUMNS_AT_ONCE), num_pairs
    of_cells = of_pairs.lengths, of_pairs.votes
    kernels.make_appearance[programs](
        appearance, of_pairs.coarse, *of_cells, votes, *has, exponent, *shape, num_warps=kernels.ROW_WARPS
    )
    return votes.sum(dim=2)


def _find_best(appearance: Tensor, scores: Tensor, wanted: Tensor, side: int) -> BestCells:
    """The best cells, from (B, N, N) appearance, (B, 2G - 1, 2G - 1) scores and (B, N) wanted cells."""
    num_pairs = len(scores)
    value = scores.new_empty(num_pairs, side * side)
    target = torch.empty_like(value, dtype=torch.long)
    column_maxima = scores.new_empty(num_pairs, side, side * side)
    found = value, target, column_maxima
    kernels.find_maxima[side, num_pairs](appearance, scores, *found, side, padded(side), num_warps=kernels.ROW_WARPS)
    column_maximum = column_maxima.amax(dim=1)
    filtered_target, filtered_value = torch.zeros_like(target), torch.zeros_like(value)
    asked = wanted.to(torch.int8), value, column_maximum, filtered_target, filtered_value
    kernels.find_filtered[side * side, num_pairs](
        appearance, scores, *asked, side, padded(side * side), num_warps=kernels.WARPS
    )
    points = cell_points(filtered_target.where(wanted, target), side)
    return BestCells(target, value, column_maximum, filtered_target, filtered_value, points, scores)


def _read_softly(found: BestCells, appearance: Tensor, problem: MatchProblem) -> BestCells:
    """The same best cells with their points read out softly, pair by pair, from (B, N, N) appearance."""
    parts = []
    for pair, of_pair in enumerate(appearance):
        maxima = Maxima(found.target[pair], found.value[pair], found.column_maximum[pair])
        scores = found.geometric_scores[pair]
        rows = partial(_correlation_rows, of_pair, scores, problem.hough)
        parts.append(BestCells.of_pair(*maxima.filter(rows, problem.wanted[pair], "soft"), scores))
    return BestCells.concatenate(parts)


def _correlation_rows(appearance: Tensor, scores: Tensor, hough: HoughVoting, cells: Tensor) -> Tensor:
    """(R, N) rows of a pair's correlation, from (N, N) appearance and (2G - 1, 2G - 1) scores."""
    return appearance[cells] * hough.scores_at(scores[None], cells[None])[0]


def bytes_per_pair(sides: set[int], grid_side: int) -> int:
    """Bytes that a pair's matrix, its coarse products, votes and column maxima take."""
    cells = grid_side * grid_side
    coarse = sum(side * side * (cells + side * side) for side in sides if side < grid_side)
    return 4 * (cells * cells + coarse + (2 * grid_side - 1) ** 2 * grid_side + cells * grid_side)


def _part(problem: MatchProblem, pairs: slice) -> MatchProblem:
    """The problem of some of the pairs."""
    of_pairs = ("pairs", "selected", "source_lengths", "target_lengths", "source_votes", "target_votes", "wanted")
    parts = {name: getattr(problem, name)[pairs] for name in of_pairs}
    return replace(problem, usable=problem.usable and problem.usable[pairs], **parts)
