"""The GPU kernels: the N x N matrix in tiles of one source row by one target row, made anew in each pass.

A tile is held in registers and never written. Layers of the grid's side are multiplied in the tile; products of coarser
layers were taken at their own side and brought to the grid along the target's columns before (`coarse_products`), so
that a tile mixes two rows of each image and multiplies with the interpolation along the source's columns.

Every output element is written by one program that adds in a fixed order: a pair's answer does not depend on the
others of its batch, nor on the run. Tiles are padded with zeros to a power of two. All numbers are float32.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from dhpf.model.best_cells import ZERO_MAXIMUM
from dhpf.model.correlation import COSINE_EPSILON

CHANNELS_AT_ONCE = 16
"""Channels in a chunk, the depth of one product; a layer's last chunk may have fewer."""
COLUMNS_AT_ONCE = 16
"""Columns of coarse maps, of all sides one after the other, that are mixed and multiplied at once."""
WARPS = 8
"""Warps of a program. With these three the compiler keeps all of a tile in registers for compute capability 9.0."""

_CHANNELS = tl.constexpr(CHANNELS_AT_ONCE)
_COLUMNS = tl.constexpr(COLUMNS_AT_ONCE)
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

    Columns k are the source columns of all sides, one side after the other, padded at the end to K.

    Attributes:
        products: (B, size) for each side [source row, source column, target row, target column of the grid].
        size: products of a pair.
        first: (K,) int32 where the products of a column's source row 0 and target row 0 begin.
        side: (K,) int32 side of a column's map, 0 for padding.
        lower: (G, K) int32 the lower of the two map rows that a grid row lies between.
        upper_weight: (G, K) weight of the upper one.
        spread: (P, K) weight of each column at each source column of the grid; 0 beyond the grid.
    """

    products: Tensor
    size: int
    first: Tensor
    side: Tensor
    lower: Tensor
    upper_weight: Tensor
    spread: Tensor


class Lengths(NamedTuple):
    """(B, N) length of each cell's hyperfeature."""

    source: Tensor
    target: Tensor


@triton.jit
def coarse_products(
    channels: Channels,
    columns: tl.tensor,
    products: tl.tensor,
    size: int,
    first: int,
    SIDE: tl.constexpr,
    SIDE_PADDED: tl.constexpr,
    CELLS: tl.constexpr,
    GRID: tl.constexpr,
    PADDED: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Writes one side of `Coarse.products`. Programs: (target row, block of CELLS source cells, pair).

    Args:
        columns: (GRID, SIDE) interpolation along one axis.
        products, size: as in Coarse.
        first: where this side begins in a pair's products.
    """
    row, block, pair = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    cells = block * CELLS + tl.arange(0, CELLS)
    inside = cells < SIDE * SIDE
    x, column = tl.arange(0, PADDED), tl.arange(0, SIDE_PADDED)
    total = tl.zeros((CELLS, SIDE_PADDED), tl.float32)
    total = _add_products(
        total, channels, pair, cells, inside, row * SIDE + column, column < SIDE, SIDE * SIDE, PRECISION
    )
    weights = tl.load(
        columns + x[None, :] * SIDE + column[:, None], mask=(x < GRID)[None, :] & (column < SIDE)[:, None], other=0.0
    )
    on_grid = tl.dot(total, weights, input_precision=PRECISION)
    at = products + pair * size + first + (cells[:, None] * SIDE + row) * GRID + x[None, :]
    tl.store(at, on_grid, mask=inside[:, None] & (x < GRID)[None, :])


@triton.jit
def count_votes(
    fine: Channels,
    coarse: Coarse,
    lengths: Lengths,
    votes: tl.tensor,
    EXPONENT: tl.constexpr,
    COARSE_COLUMNS: tl.constexpr,
    GRID: tl.constexpr,
    PADDED: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Writes appearance per displacement and source column. Programs: (dy, pair).

    Tiles of one dy are added as they are, and shifted by their source column only once, at the end.

    Args:
        votes: (B, 2 GRID - 1, GRID, 2 GRID - 1) [dy, x_s, dx]; what no match reaches must be 0 before.
    """
    dy, pair = tl.program_id(0) - (GRID - 1), tl.program_id(1).to(tl.int64)
    total = tl.zeros((PADDED, PADDED), tl.float32)
    for y in range(tl.maximum(0, -dy), tl.minimum(GRID, GRID - dy)):
        total += _appearance_tile(
            fine, coarse, lengths, pair, y, y + dy, EXPONENT, COARSE_COLUMNS, GRID, PADDED, PRECISION
        )
    x = tl.arange(0, PADDED)
    row = (pair * (2 * GRID - 1) + dy + GRID - 1) * GRID
    at = votes + (row + x[:, None]) * (2 * GRID - 1) + x[None, :] - x[:, None] + GRID - 1
    tl.store(at, total, mask=(x < GRID)[:, None] & (x < GRID)[None, :])


@triton.jit
def find_maxima(
    fine: Channels,
    coarse: Coarse,
    lengths: Lengths,
    scores: tl.tensor,
    value: tl.tensor,
    target: tl.tensor,
    column_maxima: tl.tensor,
    EXPONENT: tl.constexpr,
    COARSE_COLUMNS: tl.constexpr,
    GRID: tl.constexpr,
    PADDED: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Writes where source cells match best, and target cells' maxima over one source row. Programs: (source row, pair).

    Args:
        scores: (B, 2 GRID - 1, 2 GRID - 1) of each displacement.
        value, target: (B, N) each source cell's highest correlation and its target cell, the first one on ties.
        column_maxima: (B, GRID, N) [source row, target cell].
    """
    y, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    x = tl.arange(0, PADDED)
    highest, found = tl.full((PADDED,), -1.0, tl.float32), tl.zeros((PADDED,), tl.int32)
    for y_t in range(GRID):
        tile = _correlation_tile(
            fine, coarse, lengths, scores, pair, y, y_t, EXPONENT, COARSE_COLUMNS, GRID, PADDED, PRECISION
        )
        at = column_maxima + (pair * GRID + y) * GRID * GRID + y_t * GRID + x
        tl.store(at, tl.max(tile, axis=0), mask=x < GRID)
        highest, found = _keep_best(tile, y_t, highest, found, GRID, PADDED)
    cells = pair * GRID * GRID + y * GRID + x
    tl.store(value + cells, highest, mask=x < GRID)
    tl.store(target + cells, found, mask=x < GRID)


@triton.jit
def find_filtered(
    fine: Channels,
    coarse: Coarse,
    lengths: Lengths,
    scores: tl.tensor,
    wanted: tl.tensor,
    row_maximum: tl.tensor,
    column_maximum: tl.tensor,
    filtered_target: tl.tensor,
    filtered_value: tl.tensor,
    EXPONENT: tl.constexpr,
    COARSE_COLUMNS: tl.constexpr,
    GRID: tl.constexpr,
    PADDED: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Writes the best target of wanted source cells after the mutual filter. Programs: (source row, pair).

    A row without wanted cells costs nothing.

    Args:
        scores: (B, 2 GRID - 1, 2 GRID - 1) of each displacement.
        wanted: (B, N) int8, 1 for a source cell that is asked for.
        row_maximum, column_maximum: (B, N) highest correlation of each source and of each target cell.
        filtered_target, filtered_value: (B, N); only wanted cells are written.
    """
    y, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    x = tl.arange(0, PADDED)
    cells = pair * GRID * GRID + y * GRID + x
    asked = tl.load(wanted + cells, mask=x < GRID, other=0).to(tl.int32)
    if tl.max(asked, axis=0) > 0:
        row = _nonzero(tl.load(row_maximum + cells, mask=x < GRID, other=1.0))
        highest, found = tl.full((PADDED,), -1.0, tl.float32), tl.zeros((PADDED,), tl.int32)
        value = tl.zeros((PADDED,), tl.float32)
        for y_t in range(GRID):
            tile = _correlation_tile(
                fine, coarse, lengths, scores, pair, y, y_t, EXPONENT, COARSE_COLUMNS, GRID, PADDED, PRECISION
            )
            at = column_maximum + pair * GRID * GRID + y_t * GRID + x
            column = _nonzero(tl.load(at, mask=x < GRID, other=1.0))
            share_of_row = tl.div_rn(tile, tl.broadcast_to(row[:, None], (PADDED, PADDED)))
            share_of_column = tl.div_rn(tile, tl.broadcast_to(column[None, :], (PADDED, PADDED)))
            before = found
            highest, found = _keep_best(tile * share_of_row * share_of_column, y_t, highest, found, GRID, PADDED)
            here = tl.sum(tl.where((y_t * GRID + x)[None, :] == found[:, None], tile, 0.0), axis=1)
            value = tl.where((found != before) | (y_t == 0), here, value)
        tl.store(filtered_target + cells, found, mask=asked > 0)
        tl.store(filtered_value + cells, value, mask=asked > 0)


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
    """Maxima by which one can divide."""
    return tl.where(maximum == 0, _ZERO_MAXIMUM, maximum)


@triton.jit
def _correlation_tile(
    fine: Channels,
    coarse: Coarse,
    lengths: Lengths,
    scores: tl.tensor,
    pair: tl.tensor,
    y: tl.tensor,
    y_t: tl.tensor,
    EXPONENT: tl.constexpr,
    COARSE_COLUMNS: tl.constexpr,
    GRID: tl.constexpr,
    PADDED: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """(PADDED, PADDED) appearance times geometric score of source row y and target row y_t; 0 beyond the grid."""
    x = tl.arange(0, PADDED)
    row = (pair * (2 * GRID - 1) + y_t - y + GRID - 1) * (2 * GRID - 1)
    inside = (x < GRID)[:, None] & (x < GRID)[None, :]
    score = tl.load(scores + row + x[None, :] - x[:, None] + GRID - 1, mask=inside, other=0.0)
    appearance = _appearance_tile(
        fine, coarse, lengths, pair, y, y_t, EXPONENT, COARSE_COLUMNS, GRID, PADDED, PRECISION
    )
    return appearance * score


@triton.jit
def _appearance_tile(
    fine: Channels,
    coarse: Coarse,
    lengths: Lengths,
    pair: tl.tensor,
    y: tl.tensor,
    y_t: tl.tensor,
    EXPONENT: tl.constexpr,
    COARSE_COLUMNS: tl.constexpr,
    GRID: tl.constexpr,
    PADDED: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """(PADDED, PADDED) rectified cosine to a power of source row y and target row y_t; 0 beyond the grid."""
    x = tl.arange(0, PADDED)
    inside = x < GRID
    tile = tl.zeros((PADDED, PADDED), tl.float32)
    tile = _add_products(tile, fine, pair, y * GRID + x, inside, y_t * GRID + x, inside, GRID * GRID, PRECISION)
    for first in range(0, COARSE_COLUMNS, _COLUMNS):
        columns = first + tl.arange(0, _COLUMNS)
        mixed = _mixed_rows(coarse, pair, y, y_t, columns, COARSE_COLUMNS, GRID, PADDED)
        spread = tl.load(coarse.spread + x[:, None] * COARSE_COLUMNS + columns[None, :])
        tile = tl.dot(spread, mixed, tile, input_precision=PRECISION)
    cells = pair * GRID * GRID + x
    source = tl.load(lengths.source + cells + y * GRID, mask=inside, other=0.0)
    target = tl.load(lengths.target + cells + y_t * GRID, mask=inside, other=0.0)
    cosine = tl.maximum(tl.div_rn(tile, source[:, None] * target[None, :] + _EPSILON), 0.0)
    power = cosine
    for _ in tl.static_range(EXPONENT - 1):
        power *= cosine
    return power


@triton.jit
def _mixed_rows(
    coarse: Coarse,
    pair: tl.tensor,
    y: tl.tensor,
    y_t: tl.tensor,
    columns: tl.tensor,
    COARSE_COLUMNS: tl.constexpr,
    GRID: tl.constexpr,
    PADDED: tl.constexpr,
) -> tl.tensor:
    """(columns, PADDED) coarse products of grid rows y and y_t, still at the source's coarse columns."""
    x = tl.arange(0, PADDED)
    side = tl.load(coarse.side + columns)
    below, right = tl.load(coarse.lower + y * COARSE_COLUMNS + columns), y_t * COARSE_COLUMNS + columns
    source_share = tl.load(coarse.upper_weight + y * COARSE_COLUMNS + columns)[:, None]
    target_share = tl.load(coarse.upper_weight + right)[:, None]
    next_source = (side * side * GRID)[:, None]
    first = tl.load(coarse.first + columns) + (below * side * side + tl.load(coarse.lower + right)) * GRID
    at = coarse.products + pair * coarse.size + first[:, None] + x[None, :]
    inside = (side > 0)[:, None] & (x < GRID)[None, :]
    here = tl.load(at, mask=inside, other=0.0)
    here += target_share * (tl.load(at + GRID, mask=inside, other=0.0) - here)
    there = tl.load(at + next_source, mask=inside, other=0.0)
    there += target_share * (tl.load(at + next_source + GRID, mask=inside, other=0.0) - there)
    return here + source_share * (there - here)


@triton.jit
def _add_products(
    total: tl.tensor,
    channels: Channels,
    pair: tl.tensor,
    source_cells: tl.tensor,
    source_inside: tl.tensor,
    target_cells: tl.tensor,
    target_inside: tl.tensor,
    MAP_CELLS: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """(S, T) total plus the inner products of some cells' features, over the channels that a pair compares."""
    source_image = tl.load(channels.pairs + pair * 2).to(tl.int64)
    target_image = tl.load(channels.pairs + pair * 2 + 1).to(tl.int64)
    schedule = channels.schedule + pair * channels.stride
    channel = tl.arange(0, _CHANNELS)
    for number in range(tl.load(schedule)):
        chunk = channels.chunks + 4 * tl.load(schedule + 1 + number)
        stride = tl.load(chunk + 2)
        source = tl.load(chunk).to(tl.pointer_type(tl.float32)) + source_image * stride
        target = tl.load(chunk + 1).to(tl.pointer_type(tl.float32)) + target_image * stride
        is_there = channel < tl.load(chunk + 3)
        left = tl.load(
            source + source_cells[:, None] + channel[None, :] * MAP_CELLS,
            mask=source_inside[:, None] & is_there[None, :],
            other=0.0,
        )
        right = tl.load(
            target + target_cells[None, :] + channel[:, None] * MAP_CELLS,
            mask=target_inside[None, :] & is_there[:, None],
            other=0.0,
        )
        total = tl.dot(left, right, total, input_precision=PRECISION)
    return total
