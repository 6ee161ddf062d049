"""Entropy of a pair's matches, which weak supervision minimises (docs/algorithm.md, section 8).

The entropy is that of the filtered correlation, reduced from 60 x 60 to 15 x 15 in each direction. Interpolation from
60 to 15 positions reads 28 of them, so of the matrix only two strips carry gradient, every cell against the 28 x 28
grid of read ones, and besides them each row's and column's maximum. The whole matrix is made once, without gradient,
for the votes and for the places of the maxima.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from dhpf.config import GRID_SIDE
from dhpf.frame import NUM_CELLS, interpolation_matrix
from dhpf.model.correlation import COSINE_EPSILON, NativeCorrelation, appearance_blocks, native_products
from dhpf.model.engines.engine import nonzero
from dhpf.model.hough import NUM_DISPLACEMENTS, HoughVoting

TINY = 1e-30
SQUEEZED_SIDE = GRID_SIDE // 4
"""Side of the maps whose entropy is taken: 15."""


@dataclass(frozen=True)
class PairFeatures:
    """The features of one of a pair's images: the maps of its selected layers, and lengths.

    Attributes:
        maps: of each selected layer (C_l, side_l, side_l).
        lengths: (N,) of each cell's hyperfeature.
        foreground: (N,) how much each cell's votes count, or (0,) where all count alike.
    """

    maps: tuple[Tensor, ...]
    lengths: Tensor
    foreground: Tensor


def match_entropy(
    source: PairFeatures, target: PairFeatures, weights: Tensor, exponent: int, hough: HoughVoting
) -> Tensor:
    """Scalar: mean entropy in bits of the matches of each cell of one pair, over both directions, with gradient.

    Gradients are computed at once and kept in place of the matrices, so that a batch needs no more memory than a pair.

    Args:
        weights: (L',) weight of each selected layer.
        exponent: power of the rectified cosine.
    """
    num_layers = len(source.maps)

    def entropy(*tensors: Tensor) -> Tensor:
        maps, (source_lengths, target_lengths, of_layer) = tensors[:-3], tensors[-3:]
        left, right = ([m[None] for m in side] for side in (maps[:num_layers], maps[num_layers:]))
        products = {side: p[0] for side, p in native_products(left, right, of_layer[None]).items()}
        votes = Votes(hough, source.foreground, target.foreground)
        return _entropy_of_products(products, source_lengths, target_lengths, exponent, votes)

    tensors = (*source.maps, *target.maps, source.lengths, target.lengths, weights)
    return _GradientAtOnce.apply(entropy, *tensors)  # type: ignore[no-any-return]


class _GradientAtOnce(torch.autograd.Function):
    """A scalar function whose gradient is computed in the forward pass, so that no intermediate result is kept."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        with torch.enable_grad():
            leaves = [t.detach().requires_grad_() for t in tensors]
            value = function(*leaves)
            ctx.save_for_backward(*torch.autograd.grad(value, leaves))
        return value.detach()

    @staticmethod
    def backward(ctx: Any, of_value: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *(of_value * gradient for gradient in ctx.saved_tensors))


def _entropy_of_products(
    products: dict[int, Tensor], source_lengths: Tensor, target_lengths: Tensor, exponent: int, votes: Votes
) -> Tensor:
    """Scalar: the entropy of one pair from its native products (side -> (side^2, side^2)) and (N,) lengths."""
    whole = _read_whole(products, source_lengths, target_lengths, exponent, votes)
    backwards = {side: p.T for side, p in products.items()}
    cells = torch.arange(NUM_CELLS, device=source_lengths.device)

    def maxima(rows: Tensor, columns: Tensor) -> Tensor:
        cosine = _products_at(products, rows, columns) / _scale(source_lengths[rows], target_lengths[columns])
        return nonzero(cosine.relu().pow(exponent) * _scores_at(whole.scores, rows, columns))

    row_maximum, column_maximum = maxima(cells, whole.target), maxima(whole.source, cells)
    read = torch.tensor(read_positions(), device=cells.device)
    read = (read[:, None] * GRID_SIDE + read).flatten()
    halves = []
    for of_products, lengths, others, own, other, scores in (
        (products, source_lengths, target_lengths, row_maximum, column_maximum, whole.scores_to_read),
        (backwards, target_lengths, source_lengths, column_maximum, row_maximum, whole.scores_of_read),
    ):
        cosine = _strip(of_products) / _scale(lengths[:, None], others[read])
        strip = cosine.relu().pow(exponent) * scores
        halves.append(_entropy(strip * (strip / own[:, None]) * (strip / other[read])))
    return (halves[0] + halves[1]) / 2


@dataclass(frozen=True)
class Votes:
    """What turns appearance into geometric scores.

    Attributes:
        of_source, of_target: (N,) how much each cell's votes count, or (0,) where all count alike.
    """

    hough: HoughVoting
    of_source: Tensor
    of_target: Tensor


@dataclass(frozen=True)
class _Whole:
    """All that is read from the whole matrix, without gradient.

    Attributes:
        target: (N,) where each row's maximum stands; source: (N,) where each column's stands.
        scores: (119, 119) geometric scores by displacement.
        scores_to_read: (N, 784) scores of every source cell with the read target cells.
        scores_of_read: (N, 784) scores of every target cell with the read source cells.
    """

    target: Tensor
    source: Tensor
    scores: Tensor
    scores_to_read: Tensor
    scores_of_read: Tensor


@torch.no_grad()
def _read_whole(
    products: dict[int, Tensor], source_lengths: Tensor, target_lengths: Tensor, exponent: int, votes: Votes
) -> _Whole:
    native = NativeCorrelation({side: p[None] for side, p in products.items()})
    blocks = list(appearance_blocks(native, source_lengths[None], target_lengths[None], exponent))
    hough, counts = votes.hough, source_lengths.new_zeros(1, NUM_DISPLACEMENTS, NUM_DISPLACEMENTS)
    for y, block in enumerate(blocks):
        hough.count_row(counts, block, y, votes.of_source[None], votes.of_target[None])
    scores = hough.scores(counts)
    read = torch.tensor(read_positions(), device=counts.device)
    to_read = (read[:, None] * GRID_SIDE + read).flatten()
    targets, to_rows, of_rows = [], [], []
    column_maximum = source_lengths.new_full((NUM_CELLS,), -1.0)
    sources = torch.zeros(NUM_CELLS, dtype=torch.long, device=counts.device)
    for y, block in enumerate(blocks):
        of_row = hough.score_row(scores, y)[0]
        correlation = block[0].mul_(of_row)
        targets.append(correlation.argmax(dim=1))
        value, row = correlation.max(dim=0)
        better = value > column_maximum
        column_maximum = torch.where(better, value, column_maximum)
        sources = torch.where(better, row + y * GRID_SIDE, sources)
        to_rows.append(of_row[:, to_read])
        if y in read_positions():
            of_rows.append(of_row[read])
    return _Whole(torch.cat(targets), sources, scores[0], torch.cat(to_rows), torch.cat(of_rows).T)


@cache
def read_positions() -> tuple[int, ...]:
    """The positions on a grid axis that interpolation to 15 positions reads."""
    return tuple(_squeezing(torch.zeros(())).any(dim=0).nonzero().flatten().tolist())


def _squeezing(like: Tensor) -> Tensor:
    """(15, 60) weights of bilinear interpolation from 60 to 15 positions, end points aligned."""
    return interpolation_matrix(GRID_SIDE, like, SQUEEZED_SIDE)


def _scale(lengths: Tensor, others: Tensor) -> Tensor:
    return lengths * others + COSINE_EPSILON


def _strip(products: dict[int, Tensor]) -> Tensor:
    """(N, 784) inner products of every cell with the read cells of the other image."""
    total: Tensor | None = None
    for side, product in products.items():
        rows = interpolation_matrix(side, product)
        columns = rows[list(read_positions())]
        part = columns @ (product.view(-1, side, side) @ columns.T)
        part = rows @ part.view(side, side, -1)
        part = (rows @ part.view(side, -1)).view(NUM_CELLS, -1)
        total = part if total is None else total + part
    assert total is not None
    return total


def _products_at(products: dict[int, Tensor], rows: Tensor, columns: Tensor) -> Tensor:
    """(M,) inner products of M pairs of cells."""
    total: Tensor | None = None
    for side, product in products.items():
        row_taps, row_weights = _taps(rows, side, product)
        column_taps, column_weights = _taps(columns, side, product)
        taken = product[row_taps[:, :, None], column_taps[:, None, :]]
        part = (row_weights[:, None, :] @ taken @ column_weights[:, :, None]).flatten()
        total = part if total is None else total + part
    assert total is not None
    return total


def _taps(cells: Tensor, side: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """(M, 4) cells of a native map that M grid cells lie between, and their (M, 4) weights."""
    matrix = interpolation_matrix(side, like)
    lower = (matrix != 0).to(torch.uint8).argmax(dim=1).clamp(max=side - 2)
    places, weights = [], []
    for axis in (cells // GRID_SIDE, cells % GRID_SIDE):
        place = torch.stack([lower[axis], lower[axis] + 1], dim=1)
        places.append(place)
        weights.append(matrix[axis].gather(1, place))
    taps = places[0][:, :, None] * side + places[1][:, None, :]
    return taps.flatten(1), (weights[0][:, :, None] * weights[1][:, None, :]).flatten(1)


def _scores_at(scores: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(M,) geometric scores of M matches."""
    dy = columns // GRID_SIDE - rows // GRID_SIDE + GRID_SIDE - 1
    dx = columns % GRID_SIDE - rows % GRID_SIDE + GRID_SIDE - 1
    return scores[dy, dx]


def _entropy(strip: Tensor) -> Tensor:
    """Scalar: mean entropy of N maps of which (N, 784) filtered correlations at the read cells are given."""
    read = list(read_positions())
    squeezing = _squeezing(strip)[:, read]
    squeezed = (squeezing @ strip.view(-1, len(read), len(read)) @ squeezing.T).flatten(1)
    total = squeezed.sum(dim=1, keepdim=True)
    share = squeezed / torch.where(total == 0, torch.ones_like(total), total)
    share = torch.where(share == 0, torch.full_like(share, TINY), share)
    return -(share * share.log2()).sum(dim=1).mean()
