"""The matcher: two images in, corresponding points out.

matcher = Matcher.load("model.safetensors")      # or Matcher(ModelConfig(...)) for an untrained baseline
found = matcher.match("a.jpg", "b.jpg")          # Correspondences in original pixels
points, valid, confidence = matcher.transfer("a.jpg", "b.jpg", [[12, 40], [80, 95]])
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from dhpf.checkpoint import build_network, load_network, save_network
from dhpf.config import BordersName, EngineName, ModelConfig, require_choice
from dhpf.errors import InputError
from dhpf.frame import NUM_CELLS, Size, points_from_frame, points_to_frame, to_square
from dhpf.images import RGB, read_image, rgb_of
from dhpf.model.engines.choose import choose_engine
from dhpf.model.network import HyperpixelNetwork
from dhpf.model.transfer import PairMatch, cells_of_points
from dhpf.model.usable_cells import EVERY_CELL, UsableCells, within_border, within_part
from dhpf.records import Correspondences, Part, Points

ImageLike = str | Path | Image.Image | NDArray[np.uint8] | NDArray[np.uint16]

Parts = tuple[Part | None, Part | None]
"""A box (x0, y0, x1, y1) in pixels, or an (H, W) bool mask, of source and target; None for a whole image."""

WHOLE_IMAGES: Parts = (None, None)

UNTRAINED = ModelConfig(backbone="efficientnet_lite0", selection="fixed", layers=(5, 8, 10, 11, 15), exponent=2)
"""The best layers found for the installed backbone without any training: what works at once."""


class Matcher:
    """Finds corresponding points of two images.

    Args:
        model: what to build (its learned parts, if any, are fresh: see `load`), or a network that is ready.
        engine: one of dhpf.config.ENGINES; they differ in speed alone.
        borders: "left-out" matches nothing on an image's plain border, such as a frame or a letterbox.
    """

    def __init__(
        self,
        model: ModelConfig | HyperpixelNetwork = UNTRAINED,
        engine: EngineName = "auto",
        borders: BordersName = "kept",
    ) -> None:
        require_choice("borders", borders, get_args(BordersName))
        self.borders = borders
        self.network = build_network(model) if isinstance(model, ModelConfig) else model.eval()
        self._engine = choose_engine(engine, self.network.backbone.mean.device)

    @classmethod
    def load(cls, path: str | Path, weights: str | None = None) -> Matcher:
        """A trained matcher from a checkpoint file.

        Args:
            path: written by `save` or by a training run, or a published state dict.
            weights: file with the backbone's weights, if they are not the installed or published ones; the path that
                the checkpoint names is not followed.

        Raises:
            InputError: no usable checkpoint, or of another backbone.
        """
        return cls(load_network(path, weights))

    def save(self, path: str | Path) -> None:
        """Writes the learned part and the configuration to a .safetensors file."""
        save_network(self.network, path)

    @torch.inference_mode()
    def match(
        self, source: ImageLike, target: ImageLike, limit: int = 200, *, parts: Parts = WHOLE_IMAGES
    ) -> Correspondences:
        """The points that are each other's best match, the most confident first, at most `limit`.

        Args:
            parts: of source and target, which show the object; nothing beside them is matched.

        Raises:
            ImageError: an image cannot be read, or is all of one colour and its border is left out.
            InputError: a part that does not lie within its image, or is too small.
        """
        images = [_as_rgb(source, "source"), _as_rgb(target, "target")]
        found, layers = self._match(images, torch.zeros(1, NUM_CELLS, dtype=torch.bool), parts)
        best = found.mutual.best(limit)
        return Correspondences(
            points_from_frame(best.source_points.numpy(), _size(images[0])),
            points_from_frame(best.target_points.numpy(), _size(images[1])),
            best.confidence.numpy(),
            layers,
        )

    @torch.inference_mode()
    def transfer(
        self,
        source: ImageLike,
        target: ImageLike,
        points: ArrayLike | Sequence[Sequence[float]],
        *,
        parts: Parts = WHOLE_IMAGES,
    ) -> tuple[Points, NDArray[np.bool_], NDArray[np.float32]]:
        """Where points of the source lie in the target.

        Args:
            points: (K, 2) x and y in the source image's pixels.
            parts: as for `match`; points beside the source's part are not valid.

        Returns:
            (K, 2) points in the target image's pixels (NaN where invalid), (K,) valid, (K,) confidence as in
            Correspondences.

        Raises:
            ImageError, InputError: as `match`; or `points` is not (K, 2), or one of them lies outside the source image.
        """
        images = [_as_rgb(source, "source"), _as_rgb(target, "target")]
        wanted = _checked_points(points, _size(images[0]))
        framed = torch.from_numpy(points_to_frame(wanted, _size(images[0])))
        every = torch.ones(1, len(wanted), dtype=torch.bool)
        found, _ = self._match(images, cells_of_points(framed[None], every), parts)
        moved = found.transfer(framed)
        valid = moved.valid[0].numpy()
        points_found = points_from_frame(moved.points[0].numpy(), _size(images[1]))
        return np.where(valid[:, None], points_found, np.float32(np.nan)), valid, moved.confidence[0].numpy()

    def _match(self, images: list[RGB], wanted: Tensor, parts: Parts) -> tuple[PairMatch, tuple[int, ...]]:
        """What is found of two images, on the CPU, and the selected layers."""
        squares = torch.stack([to_square(image, self.network.config.image_side) for image in images])
        of_images = zip(squares, images, parts, ("source", "target"), strict=True)
        source, target = (self._usable(square, _size(image), part, name) for square, image, part, name in of_images)
        cells = UsableCells(source[None], target[None])
        device = self.network.backbone.mean.device
        given = squares.to(device), [(0, 1)], wanted.to(device), self._engine
        found, selection = self.network.match_images(*given, None if cells.is_every else cells.to(device))
        match = PairMatch.alone(found.to("cpu"), None if cells.is_every else source)
        return match, tuple(selection[0].nonzero().flatten().tolist())

    def _usable(self, square: Tensor, size: Size, part: Part | None, name: str) -> Tensor:
        """(N,) bool, the cells of an image that take part."""
        usable = EVERY_CELL if self.borders == "kept" else within_border(square, f"given as {name}")
        return usable if part is None else within_part(part, size, f"part of the {name}", usable)


def _size(image: RGB) -> tuple[int, int]:
    return image.shape[1], image.shape[0]


def _as_rgb(image: ImageLike, name: str) -> RGB:
    if isinstance(image, (str, Path)):
        return read_image(image)
    return rgb_of(image, f"given as {name}")


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
