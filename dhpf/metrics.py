"""Scores predictions: PCK of keypoints, LT-ACC and IoU of masks (docs/algorithm.md, section 9).

Each gives one value per pair, with all coordinates in the 240 x 240 frame. `summarise` takes the means over pairs that
benchmarks report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhpf.config import FRAME_SIDE, require_choice
from dhpf.errors import InputError
from dhpf.frame import Size, box_to_frame, points_to_frame
from dhpf.records import Box, Points

Mask = NDArray[np.bool_]
ThresholdSide = Callable[[Points, Box | None], float]

LEGACY_COLUMNS = 40
"""The published code holds a pair's keypoints in this many columns; the unused ones are (-1, -1)."""


def threshold_side(name: str, target_keypoints: Points, target_box: Box | None) -> float:
    """The side in pixels of the frame that PCK thresholds of this pair are shares of.

    Args:
        name: one of THRESHOLDS.
        target_keypoints: (K, 2) in the frame.
        target_box: (x0, y0, x1, y1) in the frame, each side scaled by its own factor; only "box" needs it.

    Raises:
        InputError: the name is unknown, or the pair has no such side (no box, no keypoints, or a side of 0).
    """
    require_choice("threshold", name, THRESHOLDS)
    side = THRESHOLDS[name](target_keypoints, target_box)
    if not 0 < side < np.inf:
        raise InputError(f"threshold {name!r}: the target's side is {side:g} pixels; it must be positive and finite")
    return side


def framed_target(
    target_keypoints: Points, target_box: Box | None, size: Size, mirrored: bool, threshold: str
) -> tuple[Points, float]:
    """A pair's target keypoints in the frame, (K, 2), and the side in pixels that its PCK thresholds are shares of.

    Args:
        target_keypoints: (K, 2) in original pixels.
        target_box: (x0, y0, x1, y1) in original pixels, if the pair has one.
        size: width and height of the target image in original pixels.
        mirrored: whether the pair is matched with both of its images mirrored.
        threshold: one of THRESHOLDS.

    Raises:
        InputError: as for `threshold_side`.
    """
    points = points_to_frame(target_keypoints, size, mirrored)
    box = None if target_box is None else box_to_frame(target_box, size)
    return points, threshold_side(threshold, points, box)


def _image_side(target_keypoints: Points, target_box: Box | None) -> float:
    return float(FRAME_SIDE)


def _keypoint_extent(target_keypoints: Points, target_box: Box | None) -> float:
    if len(target_keypoints) == 0:
        raise InputError("threshold 'keypoint-extent': the target has no keypoints; use a pair that has some")
    return float(np.ptp(target_keypoints, axis=0).max())


def _legacy_padded_extent(target_keypoints: Points, target_box: Box | None) -> float:
    """The extent as the published code takes it: with the padding, so that thresholds are larger."""
    if 0 < len(target_keypoints) < LEGACY_COLUMNS:
        target_keypoints = np.vstack([target_keypoints, np.full((1, 2), -1, target_keypoints.dtype)])
    return _keypoint_extent(target_keypoints, target_box)


def _box_side(target_keypoints: Points, target_box: Box | None) -> float:
    if target_box is None:
        raise InputError("threshold 'box': the pair has no target box; use one of the others, such as 'image'")
    x0, y0, x1, y1 = target_box
    return float(max(x1 - x0, y1 - y0))


THRESHOLDS: Mapping[str, ThresholdSide] = MappingProxyType(
    {
        "image": _image_side,
        "keypoint-extent": _keypoint_extent,
        "legacy-padded": _legacy_padded_extent,
        "box": _box_side,
    }
)
"""What a PCK threshold is a share of: the frame (PF-PASCAL), the larger extent of the target's own keypoints
(PF-WILLOW), the same as the published code computes it, the larger side of the target's box (SPair-71k)."""


def correct_keypoints(
    predicted: Points, true: Points, valid: NDArray[np.bool_], threshold: float, alphas: Sequence[float]
) -> NDArray[np.bool_]:
    """Which keypoints lie within alpha * threshold of the truth, a distance of exactly that included.

    Args:
        predicted: (K, 2) predicted target points; what stands where `valid` is False does not matter.
        true: (K, 2) target keypoints.
        valid: (K,) bool, False for a point without prediction; it counts as wrong.
        threshold: threshold side in pixels, from `threshold_side`.
        alphas: A shares of it.

    Returns:
        (A, K) bool.

    Raises:
        ValueError: the shapes disagree, or a valid prediction is not finite.
    """
    if predicted.shape != true.shape or predicted.shape != (len(valid), 2):
        raise ValueError(
            f"predicted {predicted.shape}, true {true.shape}, valid {valid.shape}: not (K, 2), (K, 2), (K,)"
        )
    if not np.isfinite(predicted[valid]).all():
        raise ValueError("a prediction that is marked as valid is not finite")
    offset = np.where(valid[:, None], predicted, 0).astype(np.float64) - true
    distance = np.hypot(offset[:, 0], offset[:, 1])
    reach = threshold * np.asarray(alphas, dtype=np.float64)
    return valid & (distance <= reach[:, None])


def pck(
    predicted: Points, true: Points, valid: NDArray[np.bool_], threshold: float, alphas: Sequence[float]
) -> NDArray[np.float64]:
    """(A,) share of a pair's keypoints that are correct; arguments and errors as for `correct_keypoints`.

    Raises:
        ValueError: also for a pair without keypoints, which has no PCK.
    """
    if len(true) == 0:
        raise ValueError("a pair without keypoints has no PCK")
    shares: NDArray[np.float64] = correct_keypoints(predicted, true, valid, threshold, alphas).mean(axis=1)
    return shares


def rasterise(outline: Points, side: int = FRAME_SIDE) -> Mask:
    """Fills a polygon; where it crosses itself, by the even-odd rule.

    A pixel belongs to the mask when its position (x, y), whole numbers, lies inside; positions on a left or upper
    edge do, on a right or lower edge do not, so that the mask of a 10 x 10 square has 100 pixels.

    Args:
        outline: (M, 2) corners in order, the last joined to the first; they may lie outside the frame.
        side: pixels per side of the mask.

    Returns:
        (side, side) bool; all False for fewer than 3 corners.

    Raises:
        ValueError: a corner is not finite.
    """
    corner = outline.astype(np.float64)
    if not np.isfinite(corner).all():
        raise ValueError("an outline holds a coordinate that is not a finite number")
    following = np.roll(corner, -1, axis=0)
    # Every edge is followed downwards: rounding must not depend on the direction in which it was drawn.
    goes_down = (corner[:, 1] <= following[:, 1])[:, None]
    upper, lower = np.where(goes_down, corner, following), np.where(goes_down, following, corner)
    rows = np.arange(side)[:, None]
    row, edge = np.nonzero((upper[:, 1] <= rows) & (rows < lower[:, 1]))
    # An edge that crosses a row is not horizontal: the division is safe.
    along = (row - upper[edge, 1]) / (lower[edge, 1] - upper[edge, 1])
    crossing = upper[edge, 0] + along * (lower[edge, 0] - upper[edge, 0])
    first_pixel = np.clip(np.ceil(crossing), 0, side).astype(np.intp)
    crossings = np.zeros((side, side + 1), dtype=np.intp)
    np.add.at(crossings, (row, first_pixel), 1)
    inside: Mask = np.cumsum(crossings[:, :side], axis=1) % 2 == 1
    return inside


def label_transfer_accuracy(transferred: Mask, target: Mask) -> float:
    """LT-ACC: the share of pixels, background included, where two masks of one shape agree."""
    _require_one_shape(transferred, target)
    return float((transferred == target).mean())


def intersection_over_union(transferred: Mask, target: Mask) -> float:
    """IoU of two masks of one shape; two empty masks agree wholly, which counts as 1."""
    _require_one_shape(transferred, target)
    union = np.count_nonzero(transferred | target)
    return np.count_nonzero(transferred & target) / union if union else 1.0


def summarise(
    values: Mapping[str, Sequence[float] | NDArray[Any]],
    categories: Sequence[str],
    num_keypoints: Sequence[int] | NDArray[Any] | None = None,
) -> dict[str, float]:
    """Means of the values of P pairs.

    Args:
        values: P values under each name, such as "pck_0.1" or "iou".
        categories: the P pairs' categories; pairs of the category "" belong to no class.
        num_keypoints: the P pairs' numbers of keypoints, where the values are shares of keypoints.

    Returns:
        For every name: NAME, the mean over pairs (what benchmarks report); NAME/class/CATEGORY, the same over the
        pairs of one category; and with `num_keypoints` NAME/per_keypoint, the share of all keypoints together.
        Empty when there are no pairs.

    Raises:
        ValueError: the lengths disagree, a value is not finite, or a pair has no keypoints.
    """
    if num_keypoints is not None and (len(num_keypoints) != len(categories) or min(num_keypoints, default=1) < 1):
        raise ValueError(f"a number of keypoints, at least 1, expected for each of {len(categories)} pairs")
    if len(categories) == 0:
        return {}
    summary: dict[str, float] = {}
    category_of = np.asarray(categories)
    for name, listed in values.items():
        of_pair = np.asarray(listed, dtype=np.float64)
        if of_pair.shape != (len(categories),) or not np.isfinite(of_pair).all():
            raise ValueError(f"{name}: {len(categories)} finite values expected, one for each pair")
        summary[name] = float(of_pair.mean())
        if num_keypoints is not None:
            summary[f"{name}/per_keypoint"] = float(np.average(of_pair, weights=num_keypoints))
        for category in sorted(set(categories) - {""}):
            summary[f"{name}/class/{category}"] = float(of_pair[category_of == category].mean())
    return summary


def _require_one_shape(first: Mask, second: Mask) -> None:
    if first.shape != second.shape:
        raise ValueError(f"masks of {first.shape} and {second.shape} pixels cannot be compared")
