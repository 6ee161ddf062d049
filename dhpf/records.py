"""Records that all parts of the project exchange: pairs, correspondences and rejections.

Shape legend, used in every docstring:

    B  pairs in a batch          L  hyperpixel layers of the backbone (0 = stem)
    K  keypoints of a pair       N  cells of the feature grid (60 * 60 = 3600)
    S  source cells, T  target cells (both N)

Points are (x, y) with x to the right and y down, in pixels; (0, 0) is the image's top-left corner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dhpf.errors import InputError

Points = NDArray[np.float32]
Box = tuple[float, float, float, float]

Part = Box | NDArray[np.bool_]
"""The part of an image that shows the object: a box (x0, y0, x1, y1) in pixels, or an (H, W) mask."""


NO_BOX = "a box is written x0,y0,x1,y1 in pixels, with x0 < x1 and y0 < y1"


def box_of(numbers: Sequence[float]) -> Box:
    """A box from x0, y0, x1, y1.

    Raises:
        ValueError: the numbers are no box; the message is a sentence for users.
    """
    if len(numbers) != 4 or not np.isfinite(numbers).all() or numbers[0] >= numbers[2] or numbers[1] >= numbers[3]:
        raise ValueError(NO_BOX)
    x0, y0, x1, y1 = map(float, numbers)
    return x0, y0, x1, y1


SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class PairRecord:
    """One pair of images and what is known about it.

    Images are named by ids that their pair source can read; annotations are in the pixels of the ORIGINAL images,
    before any resizing and before mirroring.

    Attributes:
        pair_id: unique within its split.
        category: class name, or "" when there is none.
        source, target: image ids.
        source_keypoints, target_keypoints: (K, 2) corresponding points, only those present in both images; or None.
        source_box, target_box: (x0, y0, x1, y1) of the object; or None.
        source_outline, target_outline: (M, 2) polygon of the object's mask; source and target do not correspond
            point by point and differ in length; or None.
        mirrored: both images, and their annotations with them, are to be mirrored left-right before use
            (PF-PASCAL's training list says so for half of its pairs).
        keypoint_names: one name for each keypoint, or empty.
        difficulty: named difficulty levels of SPair-71k (viewpoint, scale, truncation, occlusion), or empty.
    """

    pair_id: str
    category: str
    source: str
    target: str
    source_keypoints: Points | None = None
    target_keypoints: Points | None = None
    source_box: Box | None = None
    target_box: Box | None = None
    source_outline: Points | None = None
    target_outline: Points | None = None
    mirrored: bool = False
    keypoint_names: tuple[str, ...] = ()
    difficulty: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("source_keypoints", "target_keypoints", "source_outline", "target_outline"):
            points = getattr(self, name)
            if points is None:
                continue
            if points.ndim != 2 or points.shape[1] != 2:
                raise InputError(f"pair {self.pair_id!r}: {name} must have the shape (K, 2), not {points.shape}")
            if not np.isfinite(points).all():
                raise InputError(f"pair {self.pair_id!r}: {name} holds a coordinate that is not a finite number")
        has_source, has_target = self.source_keypoints is not None, self.target_keypoints is not None
        if has_source and has_target and len(self.source_keypoints) != len(self.target_keypoints):  # type: ignore[arg-type]
            raise InputError(
                f"pair {self.pair_id!r}: {len(self.source_keypoints)} source keypoints "  # type: ignore[arg-type]
                f"but {len(self.target_keypoints)} target keypoints"  # type: ignore[arg-type]
            )


@dataclass(frozen=True)
class Correspondences:
    """Which points of the source image are which points of the target image.

    Attributes:
        source_points: (M, 2) in the source image's original pixels.
        target_points: (M, 2) in the target image's original pixels.
        confidence: (M,) in [0, 1]: appearance (a power of the cosine) times geometric score, as a share of the score of
            the pair's strongest displacement; 1 is a perfect likeness that moves with all the others. Of a pair that
            was matched jointly, the share of all paths that lead to the target point.
        layers: the hyperpixel layers that were used for this pair, ascending.
    """

    source_points: Points
    target_points: Points
    confidence: NDArray[np.float32]
    layers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.source_points)


@dataclass(frozen=True)
class Rejection:
    """A pair that cannot be used, and why: a row in the rejects table, never a dead job.

    Attributes:
        pair_id: as the pair would have been called.
        source, target: image ids as the user's list gives them ("" when even that is missing).
        reason: one sentence.
    """

    pair_id: str
    source: str
    target: str
    reason: str
