"""The engine for CPUs: the passes over the N x N matrix compiled by numba.

A first pass computes the matrix and the votes, in tiles of one source row by one target row that stay in the first
level of the cache; a second pass applies the scores and finds the maxima. Only matrix products are left to torch. Each
row of 60 target columns is padded to 64 with zeros, so that loops are whole vectors. The code avoids what keeps LLVM
from using vectors: slices with steps, indices that may be negative, and comparisons with constants of another type.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import numba
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dhpf.config import GRID_SIDE
from dhpf.errors import InputError
from dhpf.frame import CELL_STRIDE, NUM_CELLS, cell_centres, interpolation_matrix, interpolation_taps
from dhpf.model.correlation import COSINE_EPSILON
from dhpf.model.engines.engine import ZERO_MAXIMUM, BestCells, MatchProblem, Maxima
from dhpf.model.hough import NUM_DISPLACEMENTS
from dhpf.model.readout import window_table
from dhpf.model.usable_cells import clear_unusable
from dhpf.storage.private_folder import private_folder

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Coarse = tuple[Floats, Ints, Ints, Floats]
"""Products [side][source row, source column, target row, column of the grid] one after the other, the sides, and for
each side and grid cell the lower of the two map cells it lies between and the weight of the upper one."""

_SIDE = GRID_SIDE
_PADDED = 64
_PADDED_DISPLACEMENTS = 128
_PHASES = 8
"""Votes of neighbouring source columns are shifted by one column. Added to one table they would overlap with what has
just been stored at another alignment, for which a processor waits; a table for each place in a vector avoids that."""
_STRIDE = CELL_STRIDE
_NO_WINDOW = np.empty(0, np.float32)
_FUSED = 3
"""Coarse resolutions that the innermost loop adds at once; torchvision's and timm's CNNs have no more."""
_ZERO = np.float32(0)
_EPSILON = np.float32(COSINE_EPSILON)
_ZERO_MAXIMUM = np.float32(ZERO_MAXIMUM)


class CompiledEngine:
    """Matches one pair after the other on the CPU. It reuses its buffers, so only one thread at a time may use it."""

    def __init__(self) -> None:
        self._correlation = torch.empty(NUM_CELLS, GRID_SIDE * _PADDED)
        self._coarse = torch.empty(0)

    @torch.no_grad()
    def __call__(self, problem: MatchProblem) -> BestCells:
        return BestCells.concatenate([self._match(problem, pair) for pair in range(len(problem.pairs))])

    def _match(self, problem: MatchProblem, pair: int) -> BestCells:
        votes = self._fill(problem, pair)
        scores = problem.hough.scores(torch.from_numpy(votes)[None])
        table = F.pad(scores[0], (0, _PADDED_DISPLACEMENTS - NUM_DISPLACEMENTS)).numpy()
        matrix = self._correlation.view(NUM_CELLS, GRID_SIDE, _PADDED).numpy()
        value, target = np.empty(NUM_CELLS, np.float32), np.empty(NUM_CELLS, np.int64)
        column_maximum = np.zeros((GRID_SIDE, _PADDED), np.float32)
        _score(matrix, table, value, target, column_maximum)
        columns = column_maximum[:, :GRID_SIDE].reshape(NUM_CELLS)
        maxima = Maxima(*(torch.from_numpy(values) for values in (target, value, columns)))
        wanted = problem.wanted[pair]
        read = maxima.read_cells(wanted, problem.readout).numpy()
        filtered_target, filtered_value = target.copy(), np.zeros(NUM_CELLS, np.float32)
        points = np.empty((NUM_CELLS, 2), np.float32)
        window = window_table().numpy() if problem.readout == "soft" else _NO_WINDOW
        _filter(matrix, table, read, value, column_maximum, window, filtered_target, filtered_value, points)
        centres = cell_centres()[torch.from_numpy(filtered_target)]
        where = torch.from_numpy(points).where(torch.from_numpy(read)[:, None] & (len(window) > 0), centres)
        found = (torch.from_numpy(values).where(wanted, 0) for values in (filtered_target, filtered_value))
        return BestCells.of_pair(maxima.target, maxima.value, maxima.column_maximum, *found, where, scores[0])

    def _fill(self, problem: MatchProblem, pair: int) -> Floats:
        """Appearance of all matches; gives the (119, 119) votes per displacement."""
        layers_by_side = problem.layers_by_side(pair)
        on_grid = layers_by_side.pop(GRID_SIDE, None)
        coarse = self._coarse_products(problem, pair, layers_by_side)
        fine = None if on_grid is None else problem.features(pair, on_grid)
        if fine is not None:
            fine = fine[0].flatten(1), _padded(fine[1]).flatten(1)
        votes = np.zeros((NUM_DISPLACEMENTS, _PHASES, _PADDED_DISPLACEMENTS), np.float32)
        source_lengths = problem.source_lengths[pair].view(GRID_SIDE, GRID_SIDE).numpy()
        target_lengths = _padded(problem.target_lengths[pair].view(GRID_SIDE, GRID_SIDE)).numpy()
        source_votes, target_votes = _votes_of_cells(problem, pair)
        usable = None
        if problem.usable is not None:
            usable = problem.usable.source[pair], _padded(problem.usable.target[pair].view(GRID_SIDE, -1)).flatten()
        for y in range(GRID_SIDE):
            cells = slice(y * GRID_SIDE, (y + 1) * GRID_SIDE)
            block = self._correlation[cells]
            if fine is None:
                block.zero_()
            else:
                torch.mm(fine[0][:, cells].T, fine[1], out=block)
            tiles = block.view(GRID_SIDE, GRID_SIDE, _PADDED).numpy()
            lengths, of_cells = (source_lengths[y], target_lengths), (source_votes[y], target_votes)
            _appearance_row(tiles, y, coarse, lengths, of_cells, problem.exponent, votes)
            if usable is not None:
                clear_unusable(block, usable[0][cells], usable[1])
        total = np.zeros((NUM_DISPLACEMENTS, NUM_DISPLACEMENTS), np.float32)
        for phase in range(_PHASES):
            total[:, phase:] += votes[:, phase, : NUM_DISPLACEMENTS - phase]
        return total

    def _coarse_products(self, problem: MatchProblem, pair: int, layers_by_side: dict[int, list[int]]) -> Coarse:
        """Products at resolutions below the grid's, brought to the grid along the target's columns."""
        sizes = [side**3 * _PADDED for side in layers_by_side]
        if sum(sizes) > len(self._coarse):
            self._coarse = torch.empty(sum(sizes))
        lower = np.zeros((len(sizes), GRID_SIDE), np.int64)
        upper_weight = np.zeros((len(sizes), GRID_SIDE), np.float32)
        parts = torch.split(self._coarse[: sum(sizes)], sizes)
        for row, (part, (side, layers)) in enumerate(zip(parts, layers_by_side.items(), strict=True)):
            source, target = problem.features(pair, layers)
            matrix = interpolation_matrix(side, source)
            products = source.flatten(1).T @ target.flatten(1)
            torch.mm(products.view(-1, side), _padded(matrix.T), out=part.view(-1, _PADDED))
            taps = interpolation_taps(matrix)
            lower[row], upper_weight[row] = [tap[0] for tap in taps], [tap[1] for tap in taps]
        return self._coarse.numpy(), np.array(list(layers_by_side), np.int64), lower, upper_weight


def _votes_of_cells(problem: MatchProblem, pair: int) -> tuple[Floats, Floats]:
    """(60, 60) and (60, 64) how much each source and each target cell's votes count."""
    of_source, of_target = problem.source_votes[pair], problem.target_votes[pair]
    if not len(of_source):
        return np.ones((GRID_SIDE, GRID_SIDE), np.float32), np.ones((GRID_SIDE, _PADDED), np.float32)
    of_source, of_target = (votes.view(GRID_SIDE, GRID_SIDE) for votes in (of_source, of_target))
    return of_source.numpy(), _padded(of_target).numpy()


def _compiled(function: Callable[Arguments, Result], *, fastmath: bool = True) -> Callable[Arguments, Result]:
    """The function as machine code, which later processes find beside this file, or where numba keeps its caches.

    Where it may write to neither, they lie in a folder for temporary files of this user; else each process compiles.
    """
    model = "numpy" if fastmath else "python"
    compiled = functools.partial(numba.njit, fastmath=fastmath, error_model=model, nogil=True)
    try:
        Path.home()  # without one numba would make a folder named ~ in the current folder
        return compiled(cache=True)(function)
    except RuntimeError:  # nor is there another place
        with contextlib.suppress(RuntimeError, InputError):
            numba.config.CACHE_DIR = str(private_folder("numba"))  # type: ignore[attr-defined]
            return compiled(cache=True)(function)
    return compiled()(function)


def _padded(rows: Tensor) -> Tensor:
    """(..., 60) -> (..., 64), zeros at the end."""
    return F.pad(rows, (0, _PADDED - GRID_SIDE))


@_compiled
def _appearance_row(
    block: Floats,
    y: int,
    coarse: Coarse,
    lengths: tuple[Floats, Floats],
    votes_of_cells: tuple[Floats, Floats],
    exponent: int,
    votes: Floats,
) -> None:
    """Adds the coarse products to the fine ones [x_s, y_t, x_t] of source row y, normalises, raises, and votes."""
    products, sides, lower, weight = coarse
    source_lengths, target_lengths = lengths
    source_votes, target_votes = votes_of_cells
    rows = _products_of_row(y, products, sides, lower, weight)
    total = len(rows)
    mixed = np.zeros(
        (total + 2, _PADDED), np.float32
    )  # the last two stay zero, for resolutions that a pair does not use
    at, w = np.full(_FUSED, total), np.zeros(_FUSED, np.float32)
    one = np.float32(1)
    odd, twos, fours, eights = exponent & 1 != 0, exponent & 2 != 0, exponent & 4 != 0, exponent & 8 != 0
    for y_t in range(_SIDE):
        first = 0
        for s in range(len(sides)):
            t, share = lower[s, y_t], weight[s, y_t]
            for x in range(first, first + sides[s]):
                for c in range(_PADDED):
                    mixed[x, c] = rows[x, t, c] + share * (rows[x, t + 1, c] - rows[x, t, c])
            first += sides[s]
        for x in range(_SIDE):
            first = 0
            for s in range(len(sides)):
                if s < _FUSED:
                    at[s], w[s] = first + lower[s, x], weight[s, x]
                else:
                    above, share = first + lower[s, x], weight[s, x]
                    for c in range(_PADDED):
                        block[x, y_t, c] += mixed[above, c] + share * (mixed[above + 1, c] - mixed[above, c])
                first += sides[s]
            length, vote = source_lengths[x], source_votes[x]
            i, j, k = at[0], at[1], at[2]
            w_i, w_j, w_k = w[0], w[1], w[2]
            phase = np.uintp(_SIDE - 1 - x) % np.uintp(_PHASES)
            first_column = np.uintp(_SIDE - 1 - x) - phase
            for c in range(_PADDED):  # a single loop, so that no intermediate result is stored
                product = block[x, y_t, c]
                product += mixed[i, c] + w_i * (mixed[i + 1, c] - mixed[i, c])
                product += mixed[j, c] + w_j * (mixed[j + 1, c] - mixed[j, c])
                product += mixed[k, c] + w_k * (mixed[k + 1, c] - mixed[k, c])
                cosine = product / (length * target_lengths[y_t, c] + _EPSILON)
                cosine = cosine if cosine > _ZERO else _ZERO
                square = cosine * cosine
                fourth = square * square
                power = (cosine if odd else one) * (square if twos else one)
                power *= (fourth if fours else one) * (fourth * fourth if eights else one)
                block[x, y_t, c] = power
                votes[y_t - y + _SIDE - 1, phase, first_column + np.uintp(c)] += power * (vote * target_votes[y_t, c])


@_compiled
def _products_of_row(y: int, products: Floats, sides: Ints, lower: Ints, weight: Floats) -> Floats:
    """Coarse products of grid row y: [side and source column, target row, target column of the grid]."""
    rows = np.empty((sides.sum(), sides.max() if len(sides) else 0, _PADDED), np.float32)
    first, begin = 0, 0
    for s in range(len(sides)):
        side, w = sides[s], weight[s, y]
        size = side * side * _PADDED
        at = begin + lower[s, y] * size
        above = products[at : at + size].reshape(side, side, _PADDED)
        below = products[at + size : at + 2 * size].reshape(side, side, _PADDED)
        for x in range(side):
            for t in range(side):
                for c in range(_PADDED):
                    rows[first + x, t, c] = above[x, t, c] + w * (below[x, t, c] - above[x, t, c])
        first += side
        begin += side * size
    return rows


@_compiled
def _score(appearance: Floats, scores: Floats, value: Floats, target: Ints, column_maximum: Floats) -> None:
    """Notes the maxima of rows and columns of (N, 60, 64) appearance times (119, 128) scores, which is not stored."""
    highest, found_in = np.empty(_PADDED, np.float32), np.empty(_PADDED, np.int32)
    for i in range(_SIDE * _SIDE):
        y, x = i // _SIDE, i % _SIDE
        shift = np.uintp(_SIDE - 1 - x)
        highest[:] = -1
        for y_t in range(_SIDE):
            row = np.uintp(y_t - y + _SIDE - 1)
            for c in range(_PADDED):
                correlation = appearance[i, y_t, c] * scores[row, shift + np.uintp(c)]
                found_in[c] = y_t if correlation > highest[c] else found_in[c]
                highest[c] = correlation if correlation > highest[c] else highest[c]
                maximum = column_maximum[y_t, c]
                column_maximum[y_t, c] = correlation if correlation > maximum else maximum
        best = 0
        for c in range(1, _SIDE):  # the first cell on ties, row by row
            if highest[c] > highest[best] or (highest[c] == highest[best] and found_in[c] < found_in[best]):
                best = c
        value[i], target[i] = highest[best], found_in[best] * _SIDE + best


@functools.partial(_compiled, fastmath=False)
def _filter(
    appearance: Floats,
    scores: Floats,
    read: NDArray[np.bool_],
    row_maximum: Floats,
    column_maximum: Floats,
    window: Floats,
    filtered_target: Ints,
    filtered_value: Floats,
    points: Floats,
) -> None:
    """The best target of each read source cell after the mutual filter, and the correlation there.

    Args:
        window: `window_table`, by which `points` are read out softly; empty to leave these as they are.
    """
    filtered_row = np.empty((_SIDE, _SIDE), np.float32)
    for i in np.nonzero(read)[0]:
        y, x = i // _SIDE, i % _SIDE
        row = row_maximum[i] if row_maximum[i] != 0 else _ZERO_MAXIMUM
        best = np.float32(-1)
        for y_t in range(_SIDE):
            for x_t in range(_SIDE):
                correlation = appearance[i, y_t, x_t] * scores[y_t - y + _SIDE - 1, x_t - x + _SIDE - 1]
                column = column_maximum[y_t, x_t] if column_maximum[y_t, x_t] != 0 else _ZERO_MAXIMUM
                filtered = correlation * (correlation / row) * (correlation / column)
                filtered_row[y_t, x_t] = filtered
                if filtered > best:
                    best, filtered_target[i], filtered_value[i] = filtered, y_t * _SIDE + x_t, correlation
        if len(window):
            points[i] = _read_softly(filtered_row, filtered_target[i], window)


@functools.partial(_compiled, fastmath=False)
def _read_softly(filtered: Floats, best: int, window: Floats) -> tuple[float, float]:
    """The point (x, y) that `read_out` gives for a (60, 60) filtered row and its best target cell."""
    y_best, x_best, radius = best // _SIDE, best % _SIDE, len(window) // 2
    highest = filtered[y_best, x_best]
    if highest <= 0:
        return float(x_best * _STRIDE), float(y_best * _STRIDE)
    total = x_sum = y_sum = 0.0
    for y in range(max(0, y_best - radius), min(_SIDE, y_best + radius + 1)):
        for x in range(max(0, x_best - radius), min(_SIDE, x_best + radius + 1)):
            share = filtered[y, x] / highest
            weight = share * share * window[y - y_best + radius] * window[x - x_best + radius]
            total += weight
            x_sum += weight * x
            y_sum += weight * y
    return x_sum / total * _STRIDE, y_sum / total * _STRIDE
