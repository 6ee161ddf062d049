"""The engine for CPUs: the passes over the N x N matrix compiled by numba.

The matrix is made and voted with in one pass, in tiles of one source row by one target row (60 x 60) that stay in the
first-level cache, and scored and searched in a second one. Only matrix products are left to torch.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from dhpf.config import GRID_SIDE
from dhpf.model.best_cells import ZERO_MAXIMUM, BestCells
from dhpf.model.correlation import COSINE_EPSILON
from dhpf.model.engines.problem import MatchProblem
from dhpf.model.geometry import NUM_CELLS, interpolation_matrix, interpolation_taps
from dhpf.model.hough import NUM_DISPLACEMENTS

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Coarse = tuple[Floats, Ints, Ints, Floats]
"""Products [side][source row, source column, target row, column of the grid] one after the other, the sides, and for
each side and grid cell the lower of the two map cells it lies between and the weight of the upper one."""

_SIDE = GRID_SIDE
_ZERO = np.float32(0)
_EPSILON = np.float32(COSINE_EPSILON)
_ZERO_MAXIMUM = np.float32(ZERO_MAXIMUM)


class CompiledEngine:
    """Matches one pair after the other on the CPU. Not for several threads at once: its buffers are reused."""

    def __init__(self) -> None:
        self._correlation = torch.empty(NUM_CELLS, NUM_CELLS)
        self._coarse = torch.empty(0)

    @torch.no_grad()
    def __call__(self, problem: MatchProblem) -> BestCells:
        return BestCells.concatenate([self._match(problem, pair) for pair in range(len(problem.pairs))])

    def _match(self, problem: MatchProblem, pair: int) -> BestCells:
        votes = self._fill(problem, pair)
        scores = problem.hough.scores(torch.from_numpy(votes)[None])
        table, matrix = scores[0].numpy(), self._correlation.numpy()
        value, target = np.empty(NUM_CELLS, np.float32), np.empty(NUM_CELLS, np.int64)
        column_maximum = np.zeros(NUM_CELLS, np.float32)
        _score(matrix, table, value, target, column_maximum)
        wanted = problem.wanted[pair].numpy()
        filtered_target, filtered_value = np.zeros(NUM_CELLS, np.int64), np.zeros(NUM_CELLS, np.float32)
        _filter(matrix, table, wanted, value, column_maximum, filtered_target, filtered_value)
        found = (target, value, column_maximum, filtered_target, filtered_value)
        return BestCells.of_pair(*(torch.from_numpy(values) for values in found), scores[0])

    def _fill(self, problem: MatchProblem, pair: int) -> Floats:
        """Appearance of all matches; gives the (119, 119) votes."""
        layers_by_side = problem.layers_by_side(pair)
        on_grid = layers_by_side.pop(GRID_SIDE, None)
        coarse = self._coarse_products(problem, pair, layers_by_side)
        fine = None if on_grid is None else [f.flatten(1) for f in problem.features(pair, on_grid)]
        votes = np.zeros((NUM_DISPLACEMENTS, NUM_DISPLACEMENTS), np.float32)
        source_lengths = problem.source_lengths[pair].numpy().reshape(GRID_SIDE, GRID_SIDE)
        target_lengths = problem.target_lengths[pair].numpy().reshape(GRID_SIDE, GRID_SIDE)
        for y in range(GRID_SIDE):
            cells = slice(y * GRID_SIDE, (y + 1) * GRID_SIDE)
            block = self._correlation[cells]
            if fine is None:
                block.zero_()
            else:
                torch.mm(fine[0][:, cells].T, fine[1], out=block)
            tiles = block.view(GRID_SIDE, GRID_SIDE, GRID_SIDE).numpy()
            _appearance_row(tiles, y, coarse, source_lengths[y], target_lengths, problem.exponent, votes)
        return votes

    def _coarse_products(self, problem: MatchProblem, pair: int, layers_by_side: dict[int, list[int]]) -> Coarse:
        """Products at resolutions below the grid's, brought to the grid along the target's columns."""
        sizes = [side**3 * GRID_SIDE for side in layers_by_side]
        if sum(sizes) > len(self._coarse):
            self._coarse = torch.empty(sum(sizes))
        lower = np.zeros((len(sizes), GRID_SIDE), np.int64)
        upper_weight = np.zeros((len(sizes), GRID_SIDE), np.float32)
        parts = torch.split(self._coarse[: sum(sizes)], sizes)
        for row, (part, (side, layers)) in enumerate(zip(parts, layers_by_side.items(), strict=True)):
            source, target = problem.features(pair, layers)
            matrix = interpolation_matrix(side, source)
            products = source.flatten(1).T @ target.flatten(1)
            torch.mm(products.view(-1, side), matrix.T, out=part.view(-1, GRID_SIDE))
            taps = interpolation_taps(matrix)
            lower[row], upper_weight[row] = [tap[0] for tap in taps], [tap[1] for tap in taps]
        return self._coarse.numpy(), np.array(list(layers_by_side), np.int64), lower, upper_weight


@numba.njit(fastmath=True, error_model="numpy", cache=True, nogil=True)
def _appearance_row(
    block: Floats,
    y: int,
    coarse: Coarse,
    source_lengths: Floats,
    target_lengths: Floats,
    exponent: int,
    votes: Floats,
) -> None:
    """Adds the coarse products to the fine ones [x_s, y_t, x_t] of source row y, normalises, raises, and votes."""
    products, sides, lower, weight = coarse
    total = 0
    for side in sides:
        total += side
    # Products of source row y: [side and source column, target row, target column of the grid].
    rows = np.empty((total, sides.max() if len(sides) else 0, _SIDE), np.float32)
    mixed = np.empty((total, _SIDE), np.float32)
    tile = np.empty(_SIDE, np.float32)
    power = np.empty(_SIDE, np.float32)
    first, begin = 0, 0
    for s in range(len(sides)):
        side = sides[s]
        size = side * side * _SIDE
        a = products[begin + lower[s, y] * size : begin + (lower[s, y] + 1) * size].reshape(side, side, _SIDE)
        b = products[begin + (lower[s, y] + 1) * size : begin + (lower[s, y] + 2) * size].reshape(side, side, _SIDE)
        w = weight[s, y]
        for x in range(side):
            for t in range(side):
                for c in range(_SIDE):
                    rows[first + x, t, c] = a[x, t, c] + w * (b[x, t, c] - a[x, t, c])
        first += side
        begin += side * size
    for y_t in range(_SIDE):
        first = 0
        for s in range(len(sides)):
            t, w = lower[s, y_t], weight[s, y_t]
            for x in range(first, first + sides[s]):
                for c in range(_SIDE):
                    mixed[x, c] = rows[x, t, c] + w * (rows[x, t + 1, c] - rows[x, t, c])
            first += sides[s]
        for x in range(_SIDE):
            for c in range(_SIDE):
                tile[c] = block[x, y_t, c]
            first = 0
            for s in range(len(sides)):
                at, w = first + lower[s, x], weight[s, x]
                for c in range(_SIDE):
                    tile[c] += mixed[at, c] + w * (mixed[at + 1, c] - mixed[at, c])
                first += sides[s]
            length = source_lengths[x]
            for c in range(_SIDE):
                cosine = tile[c] / (length * target_lengths[y_t, c] + _EPSILON)
                tile[c] = cosine if cosine > _ZERO else _ZERO
            for c in range(_SIDE):
                power[c] = tile[c]
            for _ in range(exponent - 1):
                for c in range(_SIDE):
                    power[c] *= tile[c]
            for c in range(_SIDE):
                block[x, y_t, c] = power[c]
            shift = np.uintp(_SIDE - 1 - x)
            for c in range(_SIDE):
                votes[y_t - y + _SIDE - 1, shift + np.uintp(c)] += power[c]


@numba.njit(fastmath=True, error_model="numpy", cache=True, nogil=True)
def _score(appearance: Floats, scores: Floats, value: Floats, target: Ints, column_maximum: Floats) -> None:
    """Notes the maxima of rows and columns of (N, N) appearance times (119, 119) scores, which is not stored."""
    highest, found_in = np.empty(_SIDE, np.float32), np.empty(_SIDE, np.int32)
    for i in range(_SIDE * _SIDE):
        y, x = i // _SIDE, i % _SIDE
        highest[:] = -1
        for y_t in range(_SIDE):
            matches = appearance[i][y_t * _SIDE : (y_t + 1) * _SIDE]
            score = scores[y_t - y + _SIDE - 1][_SIDE - 1 - x : 2 * _SIDE - 1 - x]
            maxima = column_maximum[y_t * _SIDE : (y_t + 1) * _SIDE]
            for c in range(_SIDE):
                correlation = matches[c] * score[c]
                found_in[c] = y_t if correlation > highest[c] else found_in[c]
                highest[c] = correlation if correlation > highest[c] else highest[c]
                maxima[c] = correlation if correlation > maxima[c] else maxima[c]
        best = 0
        for c in range(1, _SIDE):  # the first cell on ties, row by row
            if highest[c] > highest[best] or (highest[c] == highest[best] and found_in[c] < found_in[best]):
                best = c
        value[i], target[i] = highest[best], found_in[best] * _SIDE + best


@numba.njit(cache=True, nogil=True)
def _filter(
    appearance: Floats,
    scores: Floats,
    wanted: NDArray[np.bool_],
    row_maximum: Floats,
    column_maximum: Floats,
    filtered_target: Ints,
    filtered_value: Floats,
) -> None:
    """The best target of each wanted source cell after the mutual filter, and the correlation there."""
    for i in np.nonzero(wanted)[0]:
        y, x = i // _SIDE, i % _SIDE
        row = row_maximum[i] if row_maximum[i] != 0 else _ZERO_MAXIMUM
        best = np.float32(-1)
        for j in range(_SIDE * _SIDE):
            correlation = appearance[i, j] * scores[j // _SIDE - y + _SIDE - 1, j % _SIDE - x + _SIDE - 1]
            column = column_maximum[j] if column_maximum[j] != 0 else _ZERO_MAXIMUM
            filtered = correlation * (correlation / row) * (correlation / column)
            if filtered > best:
                best, filtered_target[i], filtered_value[i] = filtered, j, correlation
