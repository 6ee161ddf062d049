"""Describes a block: reads and decodes each of its images, and passes it through the backbone once.

With caution, where images have ended a worker's process before, some are left out and each step is announced.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from dhpf.config import BordersName
from dhpf.frame import Size, to_square
from dhpf.images import ImageError, Reserve, decoded, require_text
from dhpf.model.features import ImageFeatures
from dhpf.model.network import HyperpixelNetwork
from dhpf.model.usable_cells import EVERY_CELL, within_border
from dhpf.pipelines.blocks.caution import NO_CAUTION, Caution, Step
from dhpf.pipelines.config import FeatureType
from dhpf.pipelines.inputs.block_source import OpenBlock

DECODED_AHEAD = 4
"""Images that are decoded, or wait for a decoder, while the network works on one."""

DECODING_BYTES = 1_000_000_000
"""Images are decoded at once only while their files and pixels have about so many bytes together."""

DESCRIBE_BATCH = {"cpu": 1, "cuda": 8}
"""Images that pass through the backbone together, by type of device. On a CPU one at a time is as fast, and an image's
features are then the same to the last bit in every block."""


_Loaded = tuple[Tensor, Tensor]
"""An image's (3, side, side) square for the network, and its (N,) usable cells."""


@dataclass(frozen=True)
class ImageFacts:
    """An image's facts for rows: (width, height) in pixels and the sha256 of its file, or why it cannot be used."""

    size: Size = (0, 0)
    sha256: str = ""
    failure: str = ""


@dataclass(frozen=True)
class DescribedBlock:
    """The features and facts of a block's images.

    Attributes:
        features: of the usable images.
        places: the place of each usable image in the features, by (id, mirrored).
        facts: of every image, by id.
        usable: (images, N) bool, the cells of each usable image that take part in matching.
    """

    features: ImageFeatures
    places: Mapping[tuple[str, bool], int]
    facts: Mapping[str, ImageFacts]
    usable: Tensor


def describe_block(
    network: HyperpixelNetwork,
    block: OpenBlock,
    feature_type: FeatureType = "float32",
    caution: Caution = NO_CAUTION,
    borders: BordersName = "kept",
) -> DescribedBlock:
    """Describes each image of a block once; decodes the next images while the network works.

    Args:
        feature_type: type in which the features are kept.
        caution: what is left out, and what is called before each step.
        borders: whether cells on an image's plain border take part in matching.
    """
    side, device = network.config.image_side, network.backbone.mean.device
    num_ahead = 1 if caution.is_stepwise else DECODED_AHEAD
    batch_size = 1 if caution.is_stepwise else DESCRIBE_BATCH[device.type]
    places: dict[tuple[str, bool], int] = {}
    left_out = {image: reason for image, _ in block.images if (reason := caution.reason_without(image))}
    facts = {image: ImageFacts(failure=reason) for image, reason in left_out.items()}
    squares: list[Tensor] = []
    usable: list[Tensor] = []
    room = _Room(DECODING_BYTES)
    parts: list[ImageFeatures] = []

    def describe() -> None:
        features = network.describe(torch.stack(squares).to(device))
        parts.append(features.in_half_precision() if feature_type == "float16" else features)
        squares.clear()

    # A remote store is slow to answer, so several images are read at once.
    with ThreadPoolExecutor(num_ahead) as decoder:
        waiting = deque(image for image in block.images if image[0] not in left_out)
        decoding: deque[tuple[tuple[str, bool], Future[tuple[ImageFacts, _Loaded | None]]]] = deque()
        while waiting or decoding:
            while waiting and len(decoding) < num_ahead:
                image_id, mirrored = waiting.popleft()
                caution.step(Step.of_image(image_id))
                result = decoder.submit(_load, block.read, image_id, mirrored, side, borders, room.reserve)
                decoding.append(((image_id, mirrored), result))
            image, result = decoding.popleft()
            facts[image[0]], loaded = result.result()
            if loaded is None:
                continue
            places[image] = len(places)
            squares.append(loaded[0])
            usable.append(loaded[1])
            if len(squares) == batch_size:
                describe()
    if squares or not parts:
        if not squares:  # no image can be used: a blank one takes its place
            squares.append(torch.zeros(3, side, side, dtype=torch.uint8))
        describe()
    return DescribedBlock(ImageFeatures.concatenate(parts), places, facts, torch.stack(usable or [EVERY_CELL]))


class _Room:
    """Bytes for decoding, shared by threads; who asks for more than there are at all waits until it is alone."""

    def __init__(self, num_bytes: int) -> None:
        self._total, self._taken, self._changed = num_bytes, 0, threading.Condition()

    @contextlib.contextmanager
    def reserve(self, num_bytes: int) -> Iterator[None]:
        """Waits until there is room for so many bytes, and keeps it until the context ends."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + num_bytes <= self._total)
            self._taken += num_bytes
        try:
            yield
        finally:
            with self._changed:
                self._taken -= num_bytes
                self._changed.notify_all()


def _load(
    read: Callable[[str], bytes], image_id: str, mirrored: bool, side: int, borders: BordersName, reserve: Reserve
) -> tuple[ImageFacts, _Loaded | None]:
    """An image's facts, and what the network takes of it, None where the image cannot be used."""
    try:
        require_text(image_id)
        data = read(image_id)
        with decoded(data, image_id, reserve) as image:
            square = to_square(image.picture, side, mirrored)
        usable = EVERY_CELL if borders == "kept" else within_border(square, image_id)
    except ImageError as error:
        return ImageFacts(failure=str(error)), None
    return ImageFacts(image.size, hashlib.sha256(data).hexdigest()), (square, usable)
