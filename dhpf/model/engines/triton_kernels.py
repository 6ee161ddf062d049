"""The GPU kernels: products of features, then appearance and votes, then maxima.

Inner products are taken at each side's own resolution, a pair's matrix of the grid's side in large tiles. Layers below
the grid's side are brought to it along the target's axes (`spread_targets`), and along the source's where appearance is
made of all sides (`make_appearance`), which then takes the matrix's place. Everything after reads that matrix in tiles
of one source row by one target row. Computing it again in each pass, so that it is never written, took eight times as
long on an H200.

Every output element is written by one program that adds in a fixed order: a pair's answer does not depend on the
others of its batch, nor on the run. Tiles are padded with zeros to a power of two. All numbers are float32.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from dhpf.model.correlation import COSINE_EPSILON
from dhpf.model.engines.engine import ZERO_MAXIMUM

CHANNELS_AT_ONCE = 16
"""Channels in a chunk, the depth of one product; a layer's last chunk may have fewer."""
WARPS = 8
"""Warps of a program that multiplies."""
ROW_WARPS = 4
"""Warps of the other programs."""
COLUMNS_AT_ONCE = 16
"""Source columns in a program that makes appearance: with more, its loads would not fit into registers."""

_CHANNELS = tl.constexpr(CHANNELS_AT_ONCE)
_EPSILON = tl.constexpr(COSINE_EPSILON)
_ZERO_MAXIMUM = tl.constexpr(ZERO_MAXIMUM)


class Channels(NamedTuple):
    """The channels that B pairs compare in maps of one side, in chunks.

    Attributes:
        pairs: (B, 2) int32 source and target image.
        chunks: (C, 4) int64: address of the chunk's first channel in image 0 of the source and of the target maps,
            elements from image to image, and number of channels.
        schedule: (B, 1 + C) int32: how many chunks a pair compares, and which.
        stride: 1 + C.
    """

    pairs: Tensor
    chunks: Tensor
    schedule: Tensor
    stride: int


class Coarse(NamedTuple):
    """Products of layers below the grid's side, and how they come to the grid.

    The source cells of all sides stand one side after the other, K in all.

    Attributes:
        products: (B, K, N) of each source cell of a coarse map with each target cell of the grid.
        cells: K.
        first: (sides,) int32 where a side's cells begin.
        side: (sides,) int32.
        lower: (sides, G) int32 the lower of the two map rows that a grid row lies between.
        upper_weight: (sides, G) weight of the upper one.
    """

    products: Tensor
    cells: int
    first: Tensor
    side: Tensor
    lower: Tensor
    upper_weight: Tensor


class Lengths(NamedTuple):
    """(B, N) length of each cell's hyperfeature."""

    source: Tensor
    target: Tensor


class CellVotes(NamedTuple):
    """(B, N) how much each cell's votes count."""

    source: Tensor
    target: Tensor


@triton.jit
def multiply(
    channels: Channels,
    products: tl.tensor,
    CELLS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Writes the inner products of all cells of one side. Programs: (block of source cells, of target cells, pair).

    On an H200 three products of TF32, on its matrix units, were no faster than one of float32.

    Args:
        products: (B, CELLS, CELLS).
    """
    pair = tl.program_id(2).to(tl.int64)
    source_cells = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    target_cells = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    source_inside, target_inside = source_cells < CELLS, target_cells < CELLS
    source_image = tl.load(channels.pairs + pair * 2).to(tl.int64)
    target_image = tl.load(channels.pairs + pair * 2 + 1).to(tl.int64)
    schedule = channels.schedule + pair * channels.stride
    channel = tl.arange(0, _CHANNELS)
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for number in range(tl.load(schedule)):
        chunk = channels.chunks + 4 * tl.load(schedule + 1 + number)
        stride = tl.load(chunk + 2)
        source = tl.load(chunk).to(tl.pointer_type(tl.float32)) + source_image * stride
        target = tl.load(chunk + 1).to(tl.pointer_type(tl.float32)) + target_image * stride
        is_there = channel < tl.load(chunk + 3)
        left = tl.load(
            source + source_cells[:, None] + channel[None, :] * CELLS,
            mask=source_inside[:, None] & is_there[None, :],
            other=0.0,
        )
        right = tl.load(
            target + target_cells[None, :] + channel[:, None] * CELLS,
            mask=target_inside[None, :] & is_there[:, None],
            other=0.0,
        )
        total = tl.dot(left, right, total, input_precision="ieee")
    at = products + pair * CELLS * CELLS + source_cells[:, None] * CELLS + target_cells[None, :]
    tl.store(at, total, mask=source_inside[:, None] & target_inside[None, :])


@triton.jit
def spread_targets(
    coarse: Coarse,
    products: tl.tensor,
    number: int,
    SIDE: tl.constexpr,
    GRID: tl.constexpr,
    PADDED: tl.constexpr,
    CELLS: tl.constexpr,
) -> None:
    """Writes one side of `Coarse.products`. Programs: (block of CELLS source cells, target row, pair).

    Args:
        products: (B, SIDE * SIDE, SIDE * SIDE) of this side's cells.
        number: which of the sides this is.
    """
    row, pair = tl.program_id(1), tl.program_id(2).to(tl.int64)
    cells, x = tl.program_id(0) * CELLS + tl.arange(0, CELLS), tl.arange(0, PADDED)
    inside = (cells < SIDE * SIDE)[:, None] & (x < GRID)[None, :]
    lower, upper_weight = coarse.lower + number * GRID, coarse.upper_weight + number * GRID
    left = tl.load(lower + x, mask=x < GRID, other=0)[None, :]
    right_share = tl.load(upper_weight + x, mask=x < GRID, other=0.0)[None, :]
    below_share = tl.load(upper_weight + row)
    at = products + (pair * SIDE * SIDE + cells[:, None]) * SIDE * SIDE + tl.load(lower + row) * SIDE + left
    above = tl.load(at, mask=inside, other=0.0)
    above += right_share * (tl.load(at + 1, mask=inside, other=0.0) - above)
    below = tl.load(at + SIDE, mask=inside, other=0.0)
    below += right_share * (tl.load(at + SIDE + 1, mask=inside, other=0.0) - below)
    to = pair * coarse.cells + tl.load(coarse.first + number) + cells[:, None]
    spread = above + below_share * (below - above)
    tl.store(coarse.products + to * GRID * GRID + row * GRID + x[None, :], spread, mask=inside)


@triton.jit
def make_appearance(
    fine: tl.tensor,
    coarse: Coarse,
    lengths: Lengths,
    of_cells: CellVotes,
    votes: tl.tensor,
    HAS_FINE: tl.constexpr,
    SIDES: tl.constexpr,
    EXPONENT: tl.constexpr,
    GRID: tl.constexpr,
    PADDED: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Writes appearance, and its sums per displacement and source column. Programs: (dy, block of COLUMNS, pair).

    Tiles of one dy are added as they are, and shifted by their source column only once, at the end.

    Args:
        fine: (B, N, N) products of layers of the grid's side, if HAS_FINE; appearance takes their place.
        SIDES: number of coarse sides.
        COLUMNS: source columns of a tile.
        votes: (B, 2 GRID - 1, GRID, 2 GRID - 1) [dy, x_s, dx]; what no match reaches must be 0 before.
    """
    dy, pair = tl.program_id(0) - (GRID - 1), tl.program_id(2).to(tl.int64)
    x, x_t = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS), tl.arange(0, PADDED)
    inside = (x < GRID)[:, None] & (x_t < GRID)[None, :]
    of_pair = fine + pair * GRID * GRID * GRID * GRID
    coarse_of_pair = coarse.products + pair * coarse.cells * GRID * GRID
    source_lengths, target_lengths = lengths.source + pair * GRID * GRID, lengths.target + pair * GRID * GRID
    source_votes, target_votes = of_cells.source + pair * GRID * GRID, of_cells.target + pair * GRID * GRID
    total = tl.zeros((COLUMNS, PADDED), tl.float32)
    for y in range(tl.maximum(0, -dy), tl.minimum(GRID, GRID - dy)):
        y_t = y + dy
        tile = tl.zeros((COLUMNS, PADDED), tl.float32)
        at = of_pair + ((y * GRID + x)[:, None] * GRID * GRID + (y_t * GRID + x_t)[None, :])
        if HAS_FINE:
            tile = tl.load(at, mask=inside, other=0.0)
        for number in tl.static_range(SIDES):
            tile += _coarse_tile(coarse, coarse_of_pair, number, y, x, y_t * GRID + x_t, inside, GRID)
        source = tl.load(source_lengths + y * GRID + x, mask=x < GRID, other=0.0)
        target = tl.load(target_lengths + y_t * GRID + x_t, mask=x_t < GRID, other=0.0)
        cosine = tl.maximum(tl.div_rn(tile, source[:, None] * target[None, :] + _EPSILON), 0.0)
        power = cosine
        for _ in tl.static_range(EXPONENT - 1):
            power *= cosine
        tl.store(at, power, mask=inside)
        source_vote = tl.load(source_votes + y * GRID + x, mask=x < GRID, other=0.0)
        target_vote = tl.load(target_votes + y_t * GRID + x_t, mask=x_t < GRID, other=0.0)
        total += power * (source_vote[:, None] * target_vote[None, :])
    row = (pair * (2 * GRID - 1) + dy + GRID - 1) * GRID
    to = votes + (row + x[:, None]) * (2 * GRID - 1) + x_t[None, :] - x[:, None] + GRID - 1
    tl.store(to, total, mask=inside)


@triton.jit
def find_maxima(
    appearance: tl.tensor,
    scores: tl.tensor,
    value: tl.tensor,
    target: tl.tensor,
    column_maxima: tl.tensor,
    GRID: tl.constexpr,
    PADDED: tl.constexpr,
) -> None:
    """Writes where source cells match best, and target cells' maxima over one source row. Programs: (source row, pair).

    Args:
        appearance: (B, N, N).
        scores: (B, 2 GRID - 1, 2 GRID - 1) of each displacement.
        value, target: (B, N) each source cell's highest correlation and its target cell, the first one on ties.
        column_maxima: (B, GRID, N) [source row, target cell].
    """
    y, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    x = tl.arange(0, PADDED)
    highest, found = tl.full((PADDED,), -1.0, tl.float32), tl.zeros((PADDED,), tl.int32)
    for y_t in range(GRID):
        tile = _correlation_tile(appearance, scores, pair, y, y_t, GRID, PADDED)
        at = column_maxima + (pair * GRID + y) * GRID * GRID + y_t * GRID + x
        tl.store(at, tl.max(tile, axis=0), mask=x < GRID)
        highest, found = _keep_best(tile, y_t, highest, found, GRID, PADDED)
    cells = pair * GRID * GRID + y * GRID + x
    tl.store(value + cells, highest, mask=x < GRID)
    tl.store(target + cells, found, mask=x < GRID)


@triton.jit
def find_filtered(
    appearance: tl.tensor,
    scores: tl.tensor,
    wanted: tl.tensor,
    row_maximum: tl.tensor,
    column_maximum: tl.tensor,
    filtered_target: tl.tensor,
    filtered_value: tl.tensor,
    GRID: tl.constexpr,
    ROW: tl.constexpr,
) -> None:
    """Writes the best target of wanted source cells after the mutual filter. Programs: (source cell, pair).

    A cell that is not wanted costs almost nothing.

    Args:
        appearance: (B, N, N).
        scores: (B, 2 GRID - 1, 2 GRID - 1) of each displacement.
        wanted: (B, N) int8, 1 for a source cell that is asked for.
        row_maximum, column_maximum: (B, N) highest correlation of each source and of each target cell.
        filtered_target, filtered_value: (B, N); only wanted cells are written.
        ROW: a power of two, N at least.
    """
    cell, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    of_pair = pair * GRID * GRID
    if tl.load(wanted + of_pair + cell) > 0:
        target = tl.arange(0, ROW)
        inside = target < GRID * GRID
        dy, dx = target // GRID - cell // GRID, target % GRID - cell % GRID
        displacement = (dy + GRID - 1) * (2 * GRID - 1) + dx + GRID - 1
        score = tl.load(scores + pair * (2 * GRID - 1) * (2 * GRID - 1) + displacement, mask=inside, other=0.0)
        value = tl.load(appearance + (of_pair + cell) * GRID * GRID + target, mask=inside, other=0.0) * score
        row = _nonzero(tl.load(row_maximum + of_pair + cell))
        column = _nonzero(tl.load(column_maximum + of_pair + target, mask=inside, other=1.0))
        share_of_row = tl.div_rn(value, tl.zeros((ROW,), tl.float32) + row)
        filtered = tl.where(inside, value * share_of_row * tl.div_rn(value, column), -1.0)
        found = tl.min(tl.where(filtered == tl.max(filtered, axis=0), target, ROW), axis=0)
        tl.store(filtered_target + of_pair + cell, found)
        tl.store(filtered_value + of_pair + cell, tl.sum(tl.where(target == found, value, 0.0), axis=0))


@triton.jit
def _keep_best(
    tile: tl.tensor, y_t: tl.tensor, highest: tl.tensor, found: tl.tensor, GRID: tl.constexpr, PADDED: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Each source column's highest value so far and its target cell; the earlier cell on ties."""
    x = tl.arange(0, PADDED)
    tile = tl.where((x < GRID)[None, :], tile, -1.0)
    here = tl.max(tile, axis=1)
    column = tl.min(tl.where(tile == here[:, None], x[None, :], PADDED), axis=1)
    better = here > highest
    return tl.where(better, here, highest), tl.where(better, y_t * GRID + column, found)


@triton.jit
def _nonzero(maximum: tl.tensor) -> tl.tensor:
    """The maxima, with a tiny number in place of 0, so that one can divide by them."""
    return tl.where(maximum == 0, _ZERO_MAXIMUM, maximum)


@triton.jit
def _correlation_tile(
    appearance: tl.tensor,
    scores: tl.tensor,
    pair: tl.tensor,
    y: tl.tensor,
    y_t: tl.tensor,
    GRID: tl.constexpr,
    PADDED: tl.constexpr,
) -> tl.tensor:
    """(PADDED, PADDED) appearance times geometric score of source row y and target row y_t; 0 beyond the grid."""
    x = tl.arange(0, PADDED)
    inside = (x < GRID)[:, None] & (x < GRID)[None, :]
    of_rows = scores + (pair * (2 * GRID - 1) + y_t - y + GRID - 1) * (2 * GRID - 1)
    score = tl.load(of_rows + (x[None, :] - x[:, None] + GRID - 1), mask=inside, other=0.0)
    tile = appearance + ((pair * GRID + y) * GRID * GRID + y_t) * GRID
    return tl.load(tile + (x[:, None] * GRID * GRID + x[None, :]), mask=inside, other=0.0) * score


@triton.jit
def _coarse_tile(
    coarse: Coarse,
    of_pair: tl.tensor,
    number: tl.constexpr,
    y: tl.tensor,
    x: tl.tensor,
    target_cells: tl.tensor,
    inside: tl.tensor,
    GRID: tl.constexpr,
) -> tl.tensor:
    """Products of one coarse side, of columns x in source row y of the grid with some target cells of the grid.

    Args:
        of_pair: the pair's `Coarse.products`.
    """
    side = tl.load(coarse.side + number)
    lower, upper_weight = coarse.lower + number * GRID, coarse.upper_weight + number * GRID
    left = tl.load(lower + x, mask=x < GRID, other=0)
    right_share = tl.load(upper_weight + x, mask=x < GRID, other=0.0)[:, None]
    below_share = tl.load(upper_weight + y)
    first = tl.load(coarse.first + number) + tl.load(lower + y) * side
    at = of_pair + ((first + left)[:, None] * GRID * GRID + target_cells[None, :])
    down, across = side * GRID * GRID, GRID * GRID
    above = tl.load(at, mask=inside, other=0.0)
    above += right_share * (tl.load(at + across, mask=inside, other=0.0) - above)
    below = tl.load(at + down, mask=inside, other=0.0)
    below += right_share * (tl.load(at + down + across, mask=inside, other=0.0) - below)
    return above + below_share * (below - above)
