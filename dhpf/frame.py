"""Converts images and points to the square frame that the network works in, and points back."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dhpf.config import FRAME_SIDE
from dhpf.images import RGB
from dhpf.records import Box, Points

Size = tuple[int, int]
"""(width, height) in pixels."""

BORDER_TOLERANCE = 2.0
"""Pixels by which an annotation may overstep its image; published ones, rounded or scaled, do by up to 1."""


def to_square(image: RGB, side: int, mirrored: bool = False) -> Tensor:
    """(3, side, side) uint8: the (H, W, 3) image resized without keeping its aspect ratio.

    Antialiased bilinear on 8-bit values, as the published implementation resizes; mirrored left-right if asked.
    """
    resized = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
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
