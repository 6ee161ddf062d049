"""The public face: two images in, corresponding points out.

matcher = Matcher.load("model.safetensors")      # or Matcher(ModelConfig(...)) for an untrained baseline
found = matcher.match("a.jpg", "b.jpg")          # Correspondences in original pixels
points, valid, confidence = matcher.transfer("a.jpg", "b.jpg", [[12, 40], [80, 95]])
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from dhpf.checkpoint import build_network, load_network, save_network
from dhpf.config import ModelConfig
from dhpf.data.preprocessing import points_from_frame, points_to_frame, to_square
from dhpf.errors import InputError
from dhpf.images import RGB, ImageError, read_image
from dhpf.model.network import HyperpixelNetwork, ImageFeatures, MatcherOutput
from dhpf.model.transfer import mutual_matches, transfer
from dhpf.records import Correspondences, Points

ImageLike = str | Path | Image.Image | NDArray[np.uint8]

UNTRAINED = ModelConfig(backbone="efficientnet_lite0", selection="fixed", layers=(5, 8, 10, 11, 15), exponent=2)
"""The best layers found for the installed backbone without any training: what works at once."""


class Matcher:
    """Finds corresponding points of two images.

    Args:
        model: what to build (its learned parts, if any, are fresh: see `load`), or a network that is ready.
    """

    def __init__(self, model: ModelConfig | HyperpixelNetwork = UNTRAINED) -> None:
        self.network = build_network(model) if isinstance(model, ModelConfig) else model.eval()

    @classmethod
    def load(cls, path: str | Path, weights: str | None = None) -> Matcher:
        """A trained matcher from a checkpoint file.

        Args:
            path: written by `save` or by a training run, or a published state dict.
            weights: file with the backbone's weights, if they are not the installed or published ones.

        Raises:
            InputError: no usable checkpoint, or of another backbone.
        """
        return cls(load_network(path, weights))

    def save(self, path: str | Path) -> None:
        """Writes the learned part and the configuration to a .safetensors file."""
        save_network(self.network, path)

    @torch.inference_mode()
    def match(self, source: ImageLike, target: ImageLike, limit: int = 200) -> Correspondences:
        """The points that are each other's best match, the most confident first, at most `limit`.

        Raises:
            ImageError: an image cannot be read.
        """
        images = [_as_rgb(source, "source"), _as_rgb(target, "target")]
        output = self._correlate(images)
        found = mutual_matches(output.correlation[0], output.best_score[0], limit)
        return Correspondences(
            points_from_frame(found.source_points.numpy(), _size(images[0])),
            points_from_frame(found.target_points.numpy(), _size(images[1])),
            found.confidence.numpy(),
            tuple(output.selection[0].nonzero().flatten().tolist()),
        )

    @torch.inference_mode()
    def transfer(
        self, source: ImageLike, target: ImageLike, points: ArrayLike | Sequence[Sequence[float]]
    ) -> tuple[Points, NDArray[np.bool_], NDArray[np.float32]]:
        """Where points of the source lie in the target.

        Args:
            points: (K, 2) x and y in the source image's pixels.

        Returns:
            (K, 2) points in the target image's pixels (NaN where invalid), (K,) valid, (K,) confidence in [0, 1].

        Raises:
            ImageError: an image cannot be read.
            InputError: `points` is not (K, 2), or one of them lies outside the source image.
        """
        images = [_as_rgb(source, "source"), _as_rgb(target, "target")]
        wanted = _checked_points(points, _size(images[0]))
        output = self._correlate(images)
        framed = torch.from_numpy(points_to_frame(wanted, _size(images[0])))[None]
        moved = transfer(output.correlation, output.best_score, framed, torch.ones(1, len(wanted), dtype=torch.bool))
        valid = moved.valid[0].numpy()
        found = points_from_frame(moved.points[0].numpy(), _size(images[1]))
        return np.where(valid[:, None], found, np.float32(np.nan)), valid, moved.confidence[0].numpy()

    def _correlate(self, images: list[RGB]) -> MatcherOutput:
        side = self.network.config.image_side
        features: ImageFeatures = self.network.describe(torch.stack([to_square(i, side) for i in images]))
        return self.network.correlate(features[torch.tensor([0])], features[torch.tensor([1])])


def _size(image: RGB) -> tuple[int, int]:
    return image.shape[1], image.shape[0]


def _as_rgb(image: ImageLike, name: str) -> RGB:
    if isinstance(image, (str, Path)):
        return read_image(image)
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ImageError(f"{name} image: an array must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
    return image


def _checked_points(points: ArrayLike | Sequence[Sequence[float]], size: tuple[int, int]) -> Points:
    array = np.asarray(points, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != 2:
        raise InputError(f"points: must have the shape (K, 2), not {array.shape}")
    width, height = size
    inside = (array >= 0).all(axis=1) & (array <= (width, height)).all(axis=1)
    if not inside.all():
        x, y = array[~inside][0]
        raise InputError(f"points: ({x:g}, {y:g}) lies outside the source image of {width} x {height} pixels")
    return array
