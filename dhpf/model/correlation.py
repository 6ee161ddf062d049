"""Appearance correlation, taken at each resolution's own size and upsampled once (docs/algorithm.md, section 5).

Upsampling is linear, so the layers of one resolution share one small matrix product. The N x N matrix is made in
blocks of one grid row of source cells (60 x 3600 values), which stay in cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from dhpf.config import GRID_SIDE
from dhpf.frame import NUM_CELLS, interpolation_matrix, interpolation_taps

COSINE_EPSILON = 1e-3
ZERO_NORM_IN_TRAINING = 1e-4


def squared_norms(maps: Sequence[Tensor]) -> list[Tensor]:
    """(B, N) squared length of the upsampled feature at each grid cell, for each of several (B, C, side, side) maps.

    An upsampled feature is a weighted sum of four neighbours, so its square is a weighted sum of their inner products,
    which are taken at the map's own resolution: neighbours along x first, then along y. Maps of one side are
    interpolated together.
    """
    norms: dict[int, Tensor] = {}
    for side in sorted({m.shape[-1] for m in maps}):
        numbers = [n for n, m in enumerate(maps) if m.shape[-1] == side]
        if side == GRID_SIDE:
            norms |= {n: maps[n].square().sum(dim=1).flatten(1) for n in numbers}
            continue
        products = [_NeighbourProducts.apply(maps[n]) for n in numbers]
        same, right, below, across = (torch.cat(of_maps) for of_maps in zip(*products, strict=True))
        weights = interpolation_matrix(side, same)
        same_row = _interpolate_products(same, 2 * right, weights)
        next_row = _interpolate_products(2 * below, 2 * across, weights)
        of_side = _interpolate_products(same_row.mT, next_row.mT, weights).mT.flatten(1).clamp(min=0)
        norms |= dict(zip(numbers, torch.split(of_side, [len(maps[n]) for n in numbers]), strict=True))
    return [norms[n] for n in range(len(maps))]


_ALL, _BUT_LAST, _BUT_FIRST = slice(None), slice(None, -1), slice(1, None)
_NEIGHBOURS = (
    ((_ALL, _BUT_LAST), (_ALL, _BUT_FIRST)),
    ((_BUT_LAST, _ALL), (_BUT_FIRST, _ALL)),
    ((_BUT_LAST, _BUT_LAST), (_BUT_FIRST, _BUT_FIRST)),
    ((_BUT_LAST, _BUT_FIRST), (_BUT_FIRST, _BUT_LAST)),
)
"""Rows and columns of a cell and of its neighbour: to the right, below, and across in both ways."""


class _NeighbourProducts(torch.autograd.Function):
    """Inner products of the cells of (B, C, side, side) maps with themselves and with their neighbours.

    Gives (B, side, side) with themselves, (B, side, side - 1) to the right, (B, side - 1, side) below, and
    (B, side - 1, side - 1) across, both ways of a square of four added. Backward adds into one gradient.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.save_for_backward(maps)
        right, below, down, up = (
            (maps[:, :, y, x] * maps[:, :, y2, x2]).sum(dim=1) for (y, x), (y2, x2) in _NEIGHBOURS
        )
        return maps.square().sum(dim=1), right, below, down.add_(up)

    @staticmethod
    def backward(ctx: Any, of_same: Tensor, of_right: Tensor, of_below: Tensor, of_across: Tensor) -> Tensor:
        (maps,) = ctx.saved_tensors
        result: Tensor = maps * (2 * of_same).unsqueeze(1)
        slopes = (of_right, of_below, of_across, of_across)
        for ((y, x), (y2, x2)), slope in zip(_NEIGHBOURS, slopes, strict=True):
            slope = slope.unsqueeze(1)
            result[:, :, y, x].addcmul_(maps[:, :, y2, x2], slope)
            result[:, :, y2, x2].addcmul_(maps[:, :, y, x], slope)
        return result


def _interpolate_products(same: Tensor, cross: Tensor, weights: Tensor) -> Tensor:
    """Squares of two-tap sums along the last axis: w_a^2 s_a + w_b^2 s_b + w_a w_b c_ab; (..., side) -> (..., 60)."""
    return same @ weights.square().T + cross @ (weights[:, :-1] * weights[:, 1:]).T


def native_products(source: Sequence[Tensor], target: Sequence[Tensor], weights: Tensor) -> dict[int, Tensor]:
    """Inner products of two images' features at each resolution, for B pairs.

    Args:
        source, target: (B, C_l, side_l, side_l) maps of each layer.
        weights: (B, L) weight of each layer.

    Returns:
        side -> (B, side^2, side^2), ascending; sides of which no pair uses a layer are left out.
    """
    products = {}
    for side in sorted({m.shape[-1] for m in source}):
        layers = [l for l, m in enumerate(source) if m.shape[-1] == side]  # noqa: E741
        left, right = _weighted_features(source, target, weights, layers)
        if left.shape[1]:
            products[side] = left.mT @ right
    return products


class NativeCorrelation:
    """Native products of a batch of pairs, upsampled row by row.

    Attributes:
        by_side: side -> (B, side, side, 60, 60): source cells of the native map against target cells of the grid;
            for side 60 no upsampling is left.
    """

    def __init__(self, products: dict[int, Tensor]) -> None:
        """Args: products: `native_products`, of at least one side."""
        self._matrices = {side: interpolation_matrix(side, p) for side, p in products.items()}
        self._taps = {side: interpolation_taps(m) for side, m in self._matrices.items()}
        self.by_side = {side: _upsample_targets(p, self._matrices[side]) for side, p in products.items()}

    def row_block(self, y: int) -> Tensor:
        """(B, 60, 3600) inner products of the source cells in grid row y with all target cells."""
        rows = []
        factors = []
        full = None
        for side, products in self.by_side.items():
            batch = products.shape[0]
            if side == GRID_SIDE:
                full = products[:, y].reshape(batch, GRID_SIDE, NUM_CELLS)
                continue
            lower, upper_weight = self._taps[side][y]
            row = products[:, lower]
            if upper_weight:
                row = torch.lerp(row, products[:, lower + 1], upper_weight)
            rows.append(row.reshape(batch, side, NUM_CELLS))
            factors.append(self._matrices[side])
        if not rows:
            assert full is not None
            return full
        block = torch.cat(factors, dim=1) @ torch.cat(rows, dim=1)
        return block if full is None else block + full


def _weighted_features(
    source: Sequence[Tensor], target: Sequence[Tensor], weights: Tensor, layers: list[int]
) -> tuple[Tensor, Tensor]:
    """(B, C, side^2) features of the given layers, stacked; layers that no pair of the batch uses are left out.

    Training leaves them out, too: a weight is the square of a gate, so that at 0 its gradient is 0.
    """
    layers = [l for l in layers if bool(weights[:, l].any())]  # noqa: E741
    left = [(source[l] * weights[:, l, None, None, None]).flatten(2) for l in layers]  # noqa: E741
    right = [target[l].flatten(2) for l in layers]  # noqa: E741
    if not left:
        empty = weights.new_zeros(len(weights), 0, 0)
        return empty, empty
    return torch.cat(left, dim=1), torch.cat(right, dim=1)


def _upsample_targets(products: Tensor, matrix: Tensor) -> Tensor:
    side = matrix.shape[1]
    products = products.view(-1, side, side, side, side)
    if side == GRID_SIDE:
        return products
    return matrix @ (products @ matrix.T)


def cosines(products: Tensor, source_norms: Tensor, target_norms: Tensor) -> Tensor:
    """Cosines: (B, R, N) inner products, (B, R) and (B, N) lengths -> (B, R, N)."""
    return products / (source_norms.unsqueeze(2) * target_norms.unsqueeze(1) + COSINE_EPSILON)


def cosine_power(products: Tensor, source_norms: Tensor, target_norms: Tensor, exponent: int) -> Tensor:
    """Rectified cosine to a power; arguments as for `cosines`."""
    return cosines(products, source_norms, target_norms).relu().pow(exponent)


def feature_lengths(squared: Tensor, weights: Tensor, training: bool) -> Tensor:
    """(B, N) length of each cell's hyperfeature from (B, L, N) squared norms per layer and (B, L) weights."""
    total = torch.einsum("bl,bln->bn", weights, squared)
    if training:
        total = torch.where(total == 0, torch.full_like(total, ZERO_NORM_IN_TRAINING), total)
    return total.sqrt()


def appearance_blocks(
    native: NativeCorrelation, source_norms: Tensor, target_norms: Tensor, exponent: int
) -> Iterator[Tensor]:
    """The appearance matrix as 60 blocks (B, 60, N), one for each grid row of source cells."""
    for y in range(GRID_SIDE):
        cells = slice(y * GRID_SIDE, (y + 1) * GRID_SIDE)
        yield cosine_power(native.row_block(y), source_norms[:, cells], target_norms, exponent)


def features_at(maps: Tensor, cells: Tensor) -> Tensor:
    """(B, K, C) upsampled features of (B, C, side, side) maps at (B, K) grid cells only."""
    weights = interpolation_matrix(maps.shape[-1], maps)
    rows, columns = weights[cells // GRID_SIDE], weights[cells % GRID_SIDE]
    return torch.einsum("bcyx,bky,bkx->bkc", maps, rows, columns)


def products_at(source: Sequence[Tensor], target: Sequence[Tensor], weights: Tensor, cells: Tensor) -> Tensor:
    """(B, K, N) inner products of (B, K) source cells with all target cells: some rows of the full matrix."""
    total: Tensor | None = None
    for side in sorted({m.shape[-1] for m in source}):
        layers = [l for l, m in enumerate(source) if m.shape[-1] == side]  # noqa: E741
        left = torch.cat([features_at(source[l], cells) * weights[:, l, None, None] for l in layers], dim=2)  # noqa: E741
        right = torch.cat([target[l].flatten(2) for l in layers], dim=1)  # noqa: E741
        products = (left @ right).view(*cells.shape, side, side)
        if side != GRID_SIDE:
            factor = interpolation_matrix(side, products)
            products = factor @ (products @ factor.T)
        total = products.flatten(2) if total is None else total + products.flatten(2)
    assert total is not None
    return total
