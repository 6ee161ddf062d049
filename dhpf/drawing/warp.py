"""Warps the source image onto the target by matched points."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.interpolate
from numpy.typing import NDArray
from PIL import Image

from dhpf.drawing.sheet import contact_sheet
from dhpf.drawing.style import PAPER
from dhpf.images import RGB
from dhpf.records import Points

MIN_POINTS_TO_FIT, MIN_POINTS_TO_BEND, MAX_POINTS = 3, 6, 200
NUM_MESH_CELLS = 32
"""The warp is computed at the corners of this many cells per side, and interpolated bilinearly in between."""

SMOOTHING = 0.02
"""Of the thin-plate spline, whose coordinates are shares of the images' diagonals."""

MIN_SPREAD = 0.02
"""Points whose spread across one line is below this share of the diagonal do not determine an affine map."""

FITTING_ROUNDS = 15
OUTLIER_FACTOR, MIN_OUTLIER_DISTANCE = 4.0, 0.03
"""A match is dropped when it is this many median distances from the affine map, and this share of the diagonal."""

Coordinates = NDArray[np.float64]
PlaneMap = Callable[[Coordinates], Coordinates]


def warp_source_onto_target(
    source: RGB, target_shape: tuple[int, int], source_points: Points, target_points: Points
) -> RGB:
    """The source warped into the target's frame by a smoothed thin-plate spline through matched points.

    Args:
        source: (H, W, 3) uint8, or (H, W, 4) with opacity.
        target_shape: (height, width) of the result.
        source_points, target_points: (M, 2) matches, the best first, in original pixels; the first 200 count. Those far
            from the affine map of the majority are left out. Fewer than 6 give an affine map; fewer than 3, or all
            on one line, a plain resize.

    Returns:
        (height, width, 3) uint8, white where the source does not reach; of a source with opacity (height, width, 4),
        transparent there.

    Raises:
        ValueError: the numbers of points differ.
    """
    if len(source_points) != len(target_points):
        raise ValueError(f"{len(source_points)} source points, {len(target_points)} target points")
    height, width = target_shape
    columns = np.unique(np.linspace(0, width, NUM_MESH_CELLS + 1).round())
    rows = np.unique(np.linspace(0, height, NUM_MESH_CELLS + 1).round())
    to_source = _map_to_source(source.shape[:2], target_shape, source_points, target_points)
    corners = np.stack(np.meshgrid(columns, rows), axis=-1)
    seen = to_source(corners.reshape(-1, 2)).reshape(corners.shape)
    # A much larger source is reduced first: sampling it at single points would alias.
    reduction = max(1, int(min(source.shape[0] / height, source.shape[1] / width)))
    image = Image.fromarray(source).reduce(reduction) if reduction > 1 else Image.fromarray(source)
    seen *= (image.width / source.shape[1], image.height / source.shape[0])
    mesh = _mesh(columns.astype(int).tolist(), rows.astype(int).tolist(), seen)
    method, sampling = Image.Transform.MESH, Image.Resampling.BILINEAR
    nothing = PAPER if source.shape[2] == len(PAPER) else (*PAPER, 0)
    return np.asarray(image.transform((width, height), method, mesh, resample=sampling, fillcolor=nothing))


def draw_warp(source: RGB, target: RGB, warped: RGB) -> RGB:
    """Source, target, the source warped onto the target, and that blended with the target half and half.

    Args:
        source, target: (H, W, 3) uint8.
        warped: what `warp_source_onto_target` made, of the target's size.

    Returns:
        (H, W, 3) uint8.
    """
    blend = np.asarray(Image.blend(Image.fromarray(target), Image.fromarray(warped), 0.5))
    captions = ("source", "target", "source warped onto target", "half warped, half target")
    return contact_sheet((source, target, warped, blend), captions, columns=4)


def _mesh(
    columns: list[int], rows: list[int], seen: Coordinates
) -> list[tuple[tuple[int, int, int, int], tuple[float, ...]]]:
    """Each cell's rectangle in the target, and its four corners in the source in Pillow's order."""
    return [
        (
            (columns[i], rows[j], columns[i + 1], rows[j + 1]),
            (*seen[j, i], *seen[j + 1, i], *seen[j + 1, i + 1], *seen[j, i + 1]),
        )
        for j in range(len(rows) - 1)
        for i in range(len(columns) - 1)
    ]


def _map_to_source(
    source_shape: tuple[int, ...], target_shape: tuple[int, ...], source_points: Points, target_points: Points
) -> PlaneMap:
    """The map from target pixels to source pixels that is fitted to the matches."""
    source_size, target_size = (np.array([shape[1], shape[0]], float) for shape in (source_shape, target_shape))
    source_diagonal, target_diagonal = float(np.hypot(*source_size)), float(np.hypot(*target_size))
    finite = np.isfinite(source_points).all(axis=1) & np.isfinite(target_points).all(axis=1)
    source = source_points[finite][:MAX_POINTS].astype(np.float64) / source_diagonal
    target = target_points[finite][:MAX_POINTS].astype(np.float64) / target_diagonal
    kept = _near_the_majority(target, source)
    fitted = _fitted_map(target[kept], source[kept])
    if fitted is None:
        return lambda points: points * (source_size / target_size)
    return lambda points: fitted(points / target_diagonal) * source_diagonal


def _fitted_map(origin: Coordinates, image: Coordinates) -> PlaneMap | None:
    """A spline or an affine map of the plane, or None when the points do not determine one."""
    if len(origin) < MIN_POINTS_TO_FIT:
        return None
    extents = np.linalg.svd(origin - origin.mean(axis=0), compute_uv=False) / np.sqrt(len(origin))
    if extents[1] < MIN_SPREAD:
        return None
    if len(origin) < MIN_POINTS_TO_BEND:
        return _affine_map(origin, image, np.ones(len(origin)))
    spline: PlaneMap = scipy.interpolate.RBFInterpolator(origin, image, kernel="thin_plate_spline", smoothing=SMOOTHING)
    return spline


def _affine_map(origin: Coordinates, image: Coordinates, weights: Coordinates) -> PlaneMap:
    """The affine map with the least weighted sum of squared distances."""
    scale = np.sqrt(weights)[:, None]
    matrix = np.linalg.lstsq(_with_one(origin) * scale, image * scale, rcond=None)[0]
    return lambda points: _with_one(points) @ matrix


def _with_one(points: Coordinates) -> Coordinates:
    return np.hstack([points, np.ones((len(points), 1))])


def _near_the_majority(origin: Coordinates, image: Coordinates) -> NDArray[np.bool_]:
    """Which matches lie near the affine map with the least sum of distances, which a few wrong matches hardly change.

    Where there are few matches all are kept, because they could not outvote a wrong one.
    """
    if len(origin) < MIN_POINTS_TO_BEND:
        return np.ones(len(origin), dtype=bool)
    weights = np.ones(len(origin))
    for _ in range(FITTING_ROUNDS):
        distance = np.linalg.norm(_affine_map(origin, image, weights)(origin) - image, axis=1)
        # Least squares with these weights, repeated, is least distances.
        weights = 1 / np.maximum(distance, 1e-3)
    near: NDArray[np.bool_] = distance <= max(MIN_OUTLIER_DISTANCE, OUTLIER_FACTOR * float(np.median(distance)))
    return near
