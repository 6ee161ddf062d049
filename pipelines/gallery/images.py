"""Writes the images of a gallery: of each image a thumbnail, of some a picture, of some pairs a warp.

Files are called by numbers, never by an image's own name.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dhpf.drawing import warp_source_onto_target
from dhpf.errors import InputError
from dhpf.images import decoded
from dhpf.pipelines.gallery.tables import ReadImage
from dhpf.records import Points

THUMBNAIL_SIDE, PICTURE_SIDE, WARP_SIDE = 240, 1000, 640
"""The longest side of each kind of picture, in pixels."""

THUMBNAIL_QUALITY, PICTURE_QUALITY, WARP_QUALITY = 78, 84, 80

NUM_THREADS = 4
"""Images that are decoded at once; each may take some hundred megabytes."""

THUMBNAILS, PICTURES, WARPS = "thumbnails", "pictures", "warps"
"""Folders of the gallery."""


@dataclass
class ShownImage:
    """An image of the gallery.

    Attributes:
        file: number by which its files are called.
        image_id: as its table calls it.
        sha256: of the bytes that were matched; "" where they could not be read.
        read: gives the bytes that are there now.
        is_pictured: whether it gets a picture besides the thumbnail.
        remark: why there is none, or that the file has changed; "" otherwise.
    """

    file: int
    image_id: str
    sha256: str
    read: ReadImage
    is_pictured: bool = False
    remark: str = ""


class ShownImages:
    """The images of all tables of a gallery, each once."""

    def __init__(self) -> None:
        self._images: dict[tuple[str, str, str], ShownImage] = {}

    def add(self, store: str, image_id: str, sha256: str, read: ReadImage, *, is_pictured: bool) -> ShownImage:
        """The image, which is new or known already.

        Args:
            store: identifies where it lies.
        """
        key = (store, image_id, sha256)
        image = self._images.setdefault(key, ShownImage(len(self._images), image_id, sha256, read))
        image.is_pictured |= is_pictured
        return image

    def __len__(self) -> int:
        return len(self._images)

    def write(self, folder: Path) -> Iterator[ShownImage]:
        """Writes the files of the images, and says of each when it is done."""
        for name in (THUMBNAILS, PICTURES):
            (folder / name).mkdir()

        def write(image: ShownImage) -> ShownImage:
            write_image(image, folder)
            return image

        with ThreadPoolExecutor(NUM_THREADS) as threads:
            yield from threads.map(write, self._images.values())


def write_image(image: ShownImage, folder: Path) -> None:
    """Writes a thumbnail and perhaps a picture of an image, or remarks why not."""
    try:
        data = image.read(image.image_id)
        if image.sha256 and hashlib.sha256(data).hexdigest() != image.sha256:
            image.remark = "the file has changed since it was matched"
        with decoded(data, image.image_id) as found:
            if image.is_pictured:
                _save(found.picture, PICTURE_SIDE, folder / PICTURES / f"{image.file}.jpg", PICTURE_QUALITY)
            _save(found.picture, THUMBNAIL_SIDE, folder / THUMBNAILS / f"{image.file}.jpg", THUMBNAIL_QUALITY)
    except InputError as error:
        image.is_pictured, image.remark = False, f"no picture: {error}"


@dataclass(frozen=True)
class ShownWarp:
    """A pair whose source is shown warped onto its target.

    Attributes:
        file: number by which its file is called.
        sizes: (width, height) of the original source and target.
        source_points, target_points: (M, 2) matches in original pixels, the best first.
    """

    file: int
    source: ShownImage
    target: ShownImage
    sizes: tuple[tuple[int, int], tuple[int, int]]
    source_points: Points
    target_points: Points


def write_warps(warps: Iterable[ShownWarp], folder: Path) -> Iterator[int]:
    """Writes the warps of which both images have pictures, and gives the number of each."""
    (folder / WARPS).mkdir()
    for warp in warps:
        if warp.source.is_pictured and warp.target.is_pictured:
            _write_warp(warp, folder)
            yield warp.file


def _write_warp(warp: ShownWarp, folder: Path) -> None:
    images = [_small(folder / PICTURES / f"{image.file}.jpg") for image in (warp.source, warp.target)]
    points = [
        (points * (np.array(image.size) / np.array(size))).astype(np.float32)
        for points, image, size in zip((warp.source_points, warp.target_points), images, warp.sizes, strict=True)
    ]
    opaque = images[0].convert("RGBA")  # so that nothing of the target is covered where the source does not reach
    warped = warp_source_onto_target(np.asarray(opaque), (images[1].height, images[1].width), *points)
    Image.fromarray(warped).save(folder / WARPS / f"{warp.file}.webp", quality=WARP_QUALITY)


def _small(path: Path) -> Image.Image:
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        image.thumbnail((WARP_SIDE, WARP_SIDE))
        return image.convert("RGB")


def _save(picture: Image.Image, side: int, path: Path, quality: int) -> None:
    small = picture.copy() if max(picture.size) > side else picture
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    small.save(path, quality=quality)
