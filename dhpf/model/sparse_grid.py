"""Correlation of every second cell of the grid, in both directions: a sixteenth of the matches.

Joint matching, which needs many pairs' correlations to know one pair's, can do with these. Displacements of such cells
are even, and vote into the bins of the whole grid.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from dhpf.config import GRID_SIDE
from dhpf.frame import interpolation_matrix
from dhpf.model.correlation import cosine_power, feature_lengths
from dhpf.model.features import ImageFeatures
from dhpf.model.gates import layer_weights
from dhpf.model.hough import NUM_DISPLACEMENTS
from dhpf.model.network import HyperpixelNetwork
from dhpf.model.usable_cells import UsableCells, clear_unusable

SPARSE_SIDE = GRID_SIDE // 2
"""Cells per side that are left: 30."""


def sparse_correlation(
    network: HyperpixelNetwork, source: ImageFeatures, target: ImageFeatures, usable: UsableCells | None = None
) -> Tensor:
    """(900, 900) correlation of the sparse cells of one pair.

    Args:
        source, target: features of one image each.
        usable: the cells of the whole grid that take part; None for all.
    """
    weights = layer_weights(network.select(source, target))
    left, right = (_features(features, weights[0]) for features in (source, target))
    cells = sparse_cells(left.device)
    norms, other_norms = (feature_lengths(f.squared_norms[:, :, cells], weights, False) for f in (source, target))
    appearance = cosine_power((left.T @ right)[None], norms, other_norms, network.config.appearance_exponent)[0]
    if usable is not None:
        clear_unusable(appearance, usable.source[0, cells], usable.target[0, cells])
    votes = appearance
    if source.foreground.numel():
        votes = votes * source.foreground[0, cells, None] * target.foreground[0, cells]
    index = _displacements(left.device)
    counts = votes.new_zeros(NUM_DISPLACEMENTS**2).index_add_(0, index, votes.flatten())
    scores = network.hough.scores(counts.view(1, NUM_DISPLACEMENTS, NUM_DISPLACEMENTS)).flatten()
    return appearance * scores[index].view_as(appearance)


def _features(features: ImageFeatures, weights: Tensor) -> Tensor:
    """(C, 900) hyperfeatures of the sparse cells, each layer scaled by the root of its weight."""
    layers = []
    for maps, weight in zip(features.maps, weights, strict=True):
        if weight:
            matrix = interpolation_matrix(maps.shape[-1], maps)[::2]
            layers.append(weight.sqrt() * (matrix @ maps[0] @ matrix.T).flatten(1))
    return torch.cat(layers)


@lru_cache(maxsize=4)
def sparse_cells(device: torch.device) -> Tensor:
    """(900,) the sparse cells' numbers in the whole grid."""
    axis = torch.arange(0, GRID_SIDE, 2, device=device)
    return (axis[:, None] * GRID_SIDE + axis).flatten()


@lru_cache(maxsize=4)
def _displacements(device: torch.device) -> Tensor:
    """(810000,) index of each match's displacement [dy, dx] among the 119 x 119 that there are."""
    axis = torch.arange(0, GRID_SIDE, 2, device=device)
    shift = axis[None, :] - axis[:, None] + GRID_SIDE - 1
    return (shift[:, None, :, None] * NUM_DISPLACEMENTS + shift[None, :, None, :]).flatten()


def on_whole_grid(values: Tensor, is_known: Tensor | None = None) -> Tensor:
    """(3600, C) values of all cells from (900, C) values of the sparse ones: between two cells, their mean.

    Args:
        is_known: (900,) bool, the sparse cells that have values, of which alone means are taken; None for all. Cells
            without any beside them get 0.
    """
    if is_known is None:
        return _spread(values)
    share = is_known.to(values.dtype)[:, None]
    spread = _spread(torch.cat((values * share, share), dim=1))
    return spread[:, :-1] / spread[:, -1:].clamp(min=torch.finfo(values.dtype).tiny)


def _spread(values: Tensor) -> Tensor:
    maps = values.view(SPARSE_SIDE, SPARSE_SIDE, -1)
    for dimension in (0, 1):
        following = torch.cat((maps.narrow(dimension, 1, SPARSE_SIDE - 1), maps.narrow(dimension, -1, 1)), dimension)
        maps = torch.stack((maps, (maps + following) / 2), dimension + 1).flatten(dimension, dimension + 1)
    return maps.flatten(0, 1)
