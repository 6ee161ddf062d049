"""Where a source cell's match lies, from its row of the correlation after the mutual filter.

"cell" takes the centre of the best target cell. "soft" takes the mean of the cells around it, each weighted by the
square of its filtered correlation and by a Gaussian of its distance from the best cell: a place between cells, and one
that a single noisy cell does not move far.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dhpf.config import ReadoutName
from dhpf.frame import CELL_STRIDE

WINDOW = 16.0
"""Standard deviation in pixels of the frame of the Gaussian around the best cell."""

RADIUS = 12
"""Cells beyond this distance along an axis, three standard deviations, are left out."""


def read_out(filtered: Tensor, best: Tensor, readout: ReadoutName) -> Tensor:
    """(R, 2) target points in the frame.

    Args:
        filtered: (R, T) rows of a correlation after the mutual filter, T a square.
        best: (R,) each row's best target cell.
    """
    side = math.isqrt(filtered.shape[1])
    centres = cell_points(best, side)
    if readout == "cell":
        return centres
    axis = torch.arange(side, device=best.device)
    across, down = (_gaussian(axis - place[:, None]) for place in (best % side, best // side))
    tiny = torch.finfo(filtered.dtype).tiny
    relative = filtered / filtered.gather(1, best[:, None]).clamp(min=tiny)
    weights = relative.square().view(-1, side, side) * down[:, :, None] * across[:, None, :]
    pixels = axis.to(weights.dtype) * CELL_STRIDE
    sums = torch.stack((weights.sum(dim=1) @ pixels, weights.sum(dim=2) @ pixels), dim=1)
    total = weights.sum(dim=(1, 2))[:, None]
    return torch.where(total > 0, sums / total.clamp(min=tiny), centres)


def cell_points(cells: Tensor, side: int) -> Tensor:
    """(..., 2) centres in the frame of (...) cells, by their numbers in a grid of so many per side."""
    return torch.stack((cells % side, cells // side), dim=-1).float() * CELL_STRIDE


def window_table() -> Tensor:
    """(25,) Gaussian of -RADIUS to RADIUS cells along one axis."""
    return _gaussian(torch.arange(-RADIUS, RADIUS + 1))


def _gaussian(cells: Tensor) -> Tensor:
    pixels = cells.float() * CELL_STRIDE
    return (-pixels.square() / (2 * WINDOW**2)).exp().where(cells.abs() <= RADIUS, 0)
