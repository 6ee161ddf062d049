"""Cache of the frozen backbone's feature maps of training images, on disk and within a budget."""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from dhpf.frame import to_square
from dhpf.images import decoded
from dhpf.model.network import HyperpixelNetwork
from dhpf.storage.private_folder import private_folder

BATCH_SIZE = {"cpu": 1, "cuda": 16}
"""Images that pass through the backbone together, by type of device. On a CPU one at a time is as fast, and an image's
maps then depend on no other image."""

_CHECKSUM_SIZE = 4
"""Bytes before the maps in a file, which tell whether they are as they were written."""


@dataclass(frozen=True)
class TrainingImage:
    """An image as a training pair shows it.

    Attributes:
        digest: sha256 of the encoded bytes.
        read: gives the encoded bytes; only called where no maps are kept.
    """

    image_id: str
    digest: str
    mirrored: bool
    read: Callable[[], bytes]

    @property
    def key(self) -> str:
        """Names the maps in the cache: equal for images of equal content."""
        return self.digest + ("-mirrored" if self.mirrored else "")

    def square(self, side: int) -> Tensor:
        """The image as the network takes it, (3, side, side) uint8."""
        return self.square_of(self.read(), side)

    def square_of(self, data: bytes, side: int) -> Tensor:
        """As `square`, of encoded bytes that were read before."""
        with decoded(data, self.image_id) as image:
            return to_square(image.picture, side, self.mirrored)


class FrozenMaps:
    """Gives the backbone's maps of images: reads those that its folder holds, and computes the others.

    Several processes of a machine may share the folder, since a file appears whole or not at all.

    Args:
        folder: on a local disk.
        budget: bytes that this process may add to the folder; 0 keeps nothing.
        precision: "bfloat16" runs the backbone under autocast, and keeps its maps in half the space.

    Attributes:
        num_computed, num_read: number of images whose maps were computed, and of images whose maps were read.
        num_bytes: encoded bytes of images that were read to compute their maps.
        seconds_computing: time that computing took.
    """

    def __init__(self, network: HyperpixelNetwork, folder: Path, budget: int, precision: str = "float32") -> None:
        self._network, self._folder, self._left = network, folder, budget
        self._is_mixed = precision == "bfloat16"
        self._keeps = budget > 0
        self.num_computed, self.num_read, self.num_bytes, self.seconds_computing = 0, 0, 0, 0.0
        if self._keeps:
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def counts(self) -> tuple[int, int, int]:
        """num_computed, num_read and num_bytes."""
        return self.num_computed, self.num_read, self.num_bytes

    @torch.no_grad()
    def of(self, images: Sequence[TrainingImage]) -> list[Tensor]:
        """Maps of B images: (B, C_l, side_l, side_l) float32, channels last, for each layer the model keeps."""
        device = self._network.backbone.mean.device
        places: dict[str, list[int]] = {}
        for place, image in enumerate(images):
            places.setdefault(image.key, []).append(place)
        batch: list[Tensor] = []
        for key, maps in self._each({images[p[0]].key: images[p[0]] for p in places.values()}):
            # Filled image by image, so that the large maps of a batch lie in memory only once.
            batch = batch or [torch.empty((len(images), *m.shape), device=device) for m in maps]
            for layer, m in zip(batch, maps, strict=True):
                layer[places[key]] = m.to(layer)
        return [layer.permute(0, 3, 1, 2) for layer in batch]

    def _each(self, images: dict[str, TrainingImage]) -> Iterator[tuple[str, list[Tensor]]]:
        """Yields each image's key and its maps, (side_l, side_l, C_l) for each layer."""
        missing = {}
        for key, image in images.items():
            maps = self._read(key)
            if maps is None:
                missing[key] = image
            else:
                self.num_read += 1
                yield key, maps
        for key, maps in self._compute(missing):
            self._keep(key, maps)
            yield key, maps

    def _compute(self, images: dict[str, TrainingImage]) -> Iterator[tuple[str, list[Tensor]]]:
        side, device = self._network.config.image_side, self._network.backbone.mean.device
        keys, size = list(images), BATCH_SIZE[device.type]
        for first in range(0, len(keys), size):
            some = keys[first : first + size]
            started = time.perf_counter()
            encoded = [images[key].read() for key in some]
            self.num_bytes += sum(map(len, encoded))
            squares = torch.stack([images[key].square_of(data, side) for key, data in zip(some, encoded, strict=True)])
            squares = squares.to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=self._is_mixed):
                maps = self._network.extract(squares)
            self.num_computed += len(some)
            self.seconds_computing += time.perf_counter() - started
            yield from ((key, [m[n].permute(1, 2, 0).contiguous() for m in maps]) for n, key in enumerate(some))

    def _read(self, key: str) -> list[Tensor] | None:
        if not self._keeps:
            return None
        try:
            content = self._path(key).read_bytes()
            if _checksum(content[_CHECKSUM_SIZE:]) != content[:_CHECKSUM_SIZE]:
                return None
            stored = safetensors.torch.load(content[_CHECKSUM_SIZE:])
        except (OSError, SafetensorError):  # missing or damaged: the maps are computed
            return None
        return [stored[str(layer)] for layer in range(len(stored))]

    def _keep(self, key: str, maps: list[Tensor]) -> None:
        size = sum(m.numel() * m.element_size() for m in maps)
        if size > self._left:
            return
        partial = self._folder / f"{uuid.uuid4().hex}.partial"
        try:
            content = safetensors.torch.save({str(n): m.cpu() for n, m in enumerate(maps)})
            partial.write_bytes(_checksum(content) + content)
            partial.replace(self._path(key))
        except (OSError, SafetensorError):  # a full disk only makes training slower
            partial.unlink(missing_ok=True)
            self._left = 0
            return
        self._left -= size

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.maps"


def _checksum(content: bytes) -> bytes:
    """The content's CRC-32, for which a third of a digest's time is enough: it is to find damage, not forgery."""
    return zlib.crc32(content).to_bytes(_CHECKSUM_SIZE, "little")


@contextlib.contextmanager
def maps_folder(name: str) -> Iterator[Path]:
    """The folder of one training's maps on this machine; other processes and later attempts find it by the same name.

    It is removed when the block ends without an error; after a failure it stays for the next attempt.
    """
    folder = private_folder("maps") / name
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
