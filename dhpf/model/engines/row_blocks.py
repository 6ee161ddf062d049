"""The engine in plain torch: the reference, and the fallback where no faster engine runs.

One buffer holds a pair's N x N matrix; it is filled in blocks of one grid row of source cells, which stay in cache.
Source columns are stored from right to left: a displacement dx = x_t - x_s is then x_t + x'_s - 59, so that both the
votes and the scores of all matches are a small table read through ascending strides.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dhpf.config import GRID_SIDE
from dhpf.frame import NUM_CELLS, interpolation_matrix, interpolation_taps
from dhpf.model.correlation import COSINE_EPSILON
from dhpf.model.engines.engine import BestCells, MatchProblem, Maxima
from dhpf.model.hough import NUM_DISPLACEMENTS
from dhpf.model.usable_cells import clear_unusable


class RowBlockEngine:
    """Matches one pair after the other, on any device. It reuses its buffers, so only one thread may use it."""

    def __init__(self, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        def buffer(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        self._correlation = buffer(NUM_CELLS, NUM_CELLS)
        self._scale = buffer(GRID_SIDE, NUM_CELLS)
        self._per_rows = buffer(GRID_SIDE, GRID_SIDE, NUM_DISPLACEMENTS)

    @torch.no_grad()
    def __call__(self, problem: MatchProblem) -> BestCells:
        return BestCells.concatenate([self._match(problem, pair) for pair in range(len(problem.pairs))])

    def _match(self, problem: MatchProblem, pair: int) -> BestCells:
        self._fill(problem, pair)
        scores = problem.hough.scores(self._votes(problem.source_votes[pair], problem.target_votes[pair])[None])
        value, target, column_maximum = self._score(scores[0])
        found = Maxima(target, value, column_maximum).filter(
            lambda cells: self._correlation[_mirrored(cells)], problem.wanted[pair], problem.readout
        )
        return BestCells.of_pair(*found, scores[0])

    def _fill(self, problem: MatchProblem, pair: int) -> None:
        """Appearance of all matches."""
        products = _Products(problem, pair, self._correlation.dtype)
        source = problem.source_lengths[pair].view(GRID_SIDE, GRID_SIDE).flip(1)
        target = problem.target_lengths[pair]
        for y in range(GRID_SIDE):
            block = self._block(y)
            products.write_row(y, block)
            torch.outer(source[y], target, out=self._scale)
            block.div_(self._scale.add_(COSINE_EPSILON)).clamp_(min=0)
            _power(block, problem.exponent)
            if problem.usable is not None:
                of_row = problem.usable.source[pair].view(GRID_SIDE, GRID_SIDE)[y].flip(0)
                clear_unusable(block, of_row, problem.usable.target[pair])

    def _votes(self, of_source: Tensor, of_target: Tensor) -> Tensor:
        """(119, 119) appearance of all matches, times their cells' votes if these are given, added up per displacement.

        Args:
            of_source, of_target: (N,) or (0,) as in MatchProblem.
        """
        per_rows = self._per_rows.zero_()  # [y_s, y_t, dx]
        matches = self._correlation.view(GRID_SIDE, GRID_SIDE, GRID_SIDE, GRID_SIDE)
        for x in range(GRID_SIDE):
            of_column = matches[:, x]
            if len(of_source):
                of_cells = of_source.view(GRID_SIDE, GRID_SIDE)[:, GRID_SIDE - 1 - x]
                of_column = of_column * of_cells[:, None, None] * of_target.view(GRID_SIDE, GRID_SIDE)
            per_rows[:, :, x : x + GRID_SIDE] += of_column
        votes = per_rows.new_zeros(NUM_DISPLACEMENTS, NUM_DISPLACEMENTS)
        for y in range(GRID_SIDE):
            first = GRID_SIDE - 1 - y
            votes[first : first + GRID_SIDE] += per_rows[y]
        return votes

    def _score(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Applies (119, 119) scores; each source cell's maximum, where it stands, and each target cell's maximum."""
        size, strides = (GRID_SIDE,) * 3, (1, NUM_DISPLACEMENTS, 1)
        column_maximum = scores.new_zeros(NUM_CELLS)
        value, target = scores.new_empty(NUM_CELLS), scores.new_empty(NUM_CELLS, dtype=torch.long)
        for y in range(GRID_SIDE):
            block = self._block(y)
            block.view(size).mul_(scores.as_strided(size, strides, (GRID_SIDE - 1 - y) * NUM_DISPLACEMENTS))
            cells = slice(y * GRID_SIDE, (y + 1) * GRID_SIDE)
            value[cells] = block.amax(dim=1).flip(0)
            target[cells] = block.argmax(dim=1).flip(0)
            torch.maximum(column_maximum, block.amax(dim=0), out=column_maximum)
        return value, target, column_maximum

    def _block(self, y: int) -> Tensor:
        """(60, 3600) the matches of grid row y, source columns from right to left."""
        return self._correlation[y * GRID_SIDE : (y + 1) * GRID_SIDE]


class _Products:
    """Inner products of one pair's features, written row by row: one matrix product over channels of grid
    resolution and interpolation weights of coarser ones together."""

    def __init__(self, problem: MatchProblem, pair: int, dtype: torch.dtype) -> None:
        self._coarse: list[tuple[Tensor, list[tuple[int, float]]]] = []
        left, right = [], []
        for side, layers in problem.layers_by_side(pair).items():
            source, target = problem.features(pair, layers, dtype)
            if side == GRID_SIDE:
                left.append(source.flip(2).permute(1, 2, 0))
                right.append(target.flatten(1))
                continue
            matrix = interpolation_matrix(side, source)
            products = (source.flatten(1).T @ target.flatten(1)).view(side * side, side, side)
            self._coarse.append(((matrix @ (products @ matrix.T)).view(side, -1), interpolation_taps(matrix)))
            left.append(matrix.flip(0).expand(GRID_SIDE, -1, -1))
            right.append(source.new_empty(side, NUM_CELLS))
        # Coarse parts are in the order of their sides, before the part of the grid's own side.
        self._left = torch.cat(left, dim=2).contiguous()
        self._right = torch.cat(right)

    def write_row(self, y: int, block: Tensor) -> None:
        """Writes the (60, 3600) products of grid row y."""
        first = 0
        for products, taps in self._coarse:
            lower, weight = taps[y]
            side = products.shape[0]
            rows = self._right[first : first + side].view(-1)
            torch.lerp(products[lower], products[lower + 1], weight, out=rows)
            first += side
        torch.mm(self._left[y], self._right, out=block)


def _power(values: Tensor, exponent: int) -> None:
    """values ** exponent in place; torch's own power is slow where squares would do."""
    while exponent % 2 == 0:
        values.square_()
        exponent //= 2
    if exponent > 1:
        values.pow_(exponent)


def _mirrored(cells: Tensor) -> Tensor:
    """The places of source cells in a matrix whose source columns go from right to left."""
    return cells - cells % GRID_SIDE + GRID_SIDE - 1 - cells % GRID_SIDE
