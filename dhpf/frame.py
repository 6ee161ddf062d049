"""The square frame that the network works in, and the grid of cells in it.

Converts images and points to the frame and points back; says where cells lie, how points move with matched cells, and
how maps are interpolated to the grid.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dhpf.config import FRAME_SIDE, GRID_SIDE
from dhpf.images import RGB
from dhpf.records import Box, Points

Size = tuple[int, int]
"""(width, height) in pixels."""

BORDER_TOLERANCE = 2.0
"""Pixels by which an annotation may overstep its image; published ones, rounded or scaled, do by up to 1."""

NUM_CELLS = GRID_SIDE * GRID_SIDE
CELL_STRIDE = FRAME_SIDE // GRID_SIDE
"""Pixels between the centres of neighbouring cells: 4."""

BOX_RADIUS = 5
"""Half the side of a cell's receptive field box, in pixels of the frame (docs/algorithm.md, section 6)."""


def to_square(image: RGB | Image.Image, side: int, mirrored: bool = False) -> Tensor:
    """(3, side, side) uint8: the (H, W, 3) or RGB image resized without keeping its aspect ratio.

    Antialiased bilinear on 8-bit values, as the published implementation resizes; mirrored left-right if asked.
    """
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    resized = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))
    if mirrored:
        resized = resized[:, ::-1]
    return torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))


def lies_outside(points: Points, size: Size, image_id: str) -> str | None:
    """Which of (K, 2) points oversteps its image of (width, height) pixels; None when they all lie in it."""
    if not len(points):
        return None
    overstep = np.maximum(-points, points - np.array(size, dtype=np.float32)).max(axis=1)
    if overstep.max() <= BORDER_TOLERANCE:
        return None
    x, y = points[overstep.argmax()]
    return f"({x:g}, {y:g}) lies outside image {image_id} of {size[0]} x {size[1]} pixels"


def points_to_frame(points: Points, size: Size, mirrored: bool = False) -> Points:
    """(K, 2) points of an image of (width, height) pixels in the 240 x 240 frame."""
    scaled = points * _scale(size)
    if mirrored:
        scaled = np.stack((FRAME_SIDE - scaled[:, 0], scaled[:, 1]), axis=1)
    return scaled.astype(np.float32)


def points_from_frame(points: NDArray[np.floating], size: Size, mirrored: bool = False) -> Points:
    """The inverse of `points_to_frame`."""
    if mirrored:
        points = np.stack((FRAME_SIDE - points[:, 0], points[:, 1]), axis=1)
    return (points / _scale(size)).astype(np.float32)


def box_to_frame(box: Box, size: Size) -> Box:
    """(x0, y0, x1, y1) in the 240 x 240 frame."""
    (x0, y0), (x1, y1) = np.array(box, dtype=np.float32).reshape(2, 2) * _scale(size)
    return float(x0), float(y0), float(x1), float(y1)


def _scale(size: Size) -> NDArray[np.float32]:
    width, height = size
    return np.array([FRAME_SIDE / width, FRAME_SIDE / height], dtype=np.float32)


# -- the grid ----------------------------------------------------------------------------------------------------


def cell_centres(dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> Tensor:
    """(N, 2) centres (x, y) of the cells in the frame, row by row: cell (row y, column x) lies at (4x, 4y)."""
    axis = torch.arange(GRID_SIDE, dtype=dtype, device=device) * CELL_STRIDE
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack((x.flatten(), y.flatten()), dim=1)


def covering_cells(points: Tensor) -> Tensor:
    """Which cells' boxes contain which points, bounds inclusive.

    Args:
        points: (..., K, 2) in the frame.

    Returns:
        (..., K, N) bool.
    """
    offset = points.unsqueeze(-2) - cell_centres(points.dtype, points.device)
    return (offset.abs() <= BOX_RADIUS).all(dim=-1)


def nearest_cells(points: Tensor) -> Tensor:
    """(..., K) index of the cell whose centre is nearest to each of (..., K, 2) points; the first one on ties."""
    offset = points.unsqueeze(-2) - cell_centres(points.dtype, points.device)
    return offset.square().sum(dim=-1).argmin(dim=-1)


def transfer_points(points: Tensor, covering: Tensor, target_points: Tensor) -> tuple[Tensor, Tensor]:
    """Moves source points with the cells that cover them (docs/algorithm.md, section 7).

    Args:
        points: (B, K, 2) source points in the frame.
        covering: (B, K, N) bool, which source cells cover which point (`covering_cells`), False for padding.
        target_points: (B, N, 2) where each source cell's centre lies in the target's frame.

    Returns:
        (B, K, 2) transferred points, and (B, K) bool: False where no cell covers the point (its value is then 0).
    """
    centres = cell_centres(points.dtype, points.device)
    # Top-left corners differ from centres by a constant, so moving by corners is moving by centres.
    shift = target_points.to(points.dtype) - centres
    share = covering.to(points.dtype)
    count = share.sum(dim=-1, keepdim=True)
    moved = points + (share @ shift) / count.clamp(min=1)
    valid = count.squeeze(-1) > 0
    return torch.where(valid.unsqueeze(-1), moved, torch.zeros_like(moved)), valid


def interpolation_matrix(side: int, like: Tensor, grid_side: int = GRID_SIDE) -> Tensor:
    """(60, side) weights of bilinear interpolation along one axis, end points aligned, in `like`'s dtype and device.

    Upsampling a (side, side) map to the grid is A @ map @ A.T; the weights are torch's own, so that results agree.
    Another grid side than 60 is for small examples. Made once and shared: not to be changed.
    """
    return _interpolation_matrix(side, grid_side, like.dtype, like.device)


@lru_cache(maxsize=64)
def _interpolation_matrix(side: int, grid_side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # it may be used with gradient later
        identity = torch.eye(side, dtype=dtype, device=device)
        return F.interpolate(identity[None], size=grid_side, mode="linear", align_corners=True)[0].T.contiguous()


def interpolation_taps(matrix: Tensor) -> list[tuple[int, float]]:
    """For each of the 60 grid rows: the lower of the two map rows it lies between, and the weight of the upper one.

    Args:
        matrix: (60, side) from `interpolation_matrix`, side at least 2.
    """
    lower = (matrix != 0).to(torch.uint8).argmax(dim=1).clamp(max=matrix.shape[1] - 2)
    upper_weight = matrix.gather(1, lower[:, None] + 1)[:, 0]
    return list(zip(lower.tolist(), upper_weight.tolist(), strict=True))


def to_grid(maps: Tensor) -> Tensor:
    """Brings (B, C, side, side) maps larger than the grid to 60 x 60; smaller ones stay as they are."""
    if maps.shape[-1] <= GRID_SIDE:
        return maps
    return F.interpolate(maps, size=(GRID_SIDE, GRID_SIDE), mode="bilinear", align_corners=True)
