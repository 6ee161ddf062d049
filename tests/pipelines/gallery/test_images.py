from __future__ import annotations

import dataclasses
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dhpf.images import ImageError
from dhpf.pipelines.gallery.images import PICTURES, THUMBNAILS, WARPS, ShownImage, ShownImages, ShownWarp, write_warps


def encoded(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(buffer, "PNG")
    return buffer.getvalue()


FILES = {"large.png": encoded(1500, 300), "small.png": encoded(80, 120), "broken.png": b"no image"}


def read(image_id: str) -> bytes:
    if image_id not in FILES:
        raise ImageError(f"image {image_id}: no such file")
    return FILES[image_id]


def digest(image_id: str) -> str:
    return hashlib.sha256(FILES[image_id]).hexdigest()


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_an_image_gets_a_thumbnail_and_if_wanted_a_picture_never_larger_than_itself(tmp_path: Path) -> None:
    images = ShownImages()
    images.add("s", "large.png", digest("large.png"), read, is_pictured=False)
    again = images.add("s", "large.png", digest("large.png"), read, is_pictured=True)
    images.add("s", "small.png", digest("small.png"), read, is_pictured=False)
    other = images.add("other store", "small.png", digest("small.png"), read, is_pictured=False)
    assert again.file == 0 and other.file == 2 and len(images) == 3
    assert [image.remark for image in images.write(tmp_path)] == ["", "", ""]
    assert size(tmp_path / PICTURES / "0.jpg") == (1000, 200) and size(tmp_path / THUMBNAILS / "0.jpg") == (240, 48)
    assert size(tmp_path / THUMBNAILS / "1.jpg") == (80, 120) and not (tmp_path / PICTURES / "1.jpg").exists()


@pytest.mark.parametrize(
    ("image_id", "sha256", "remark", "has_picture"),
    [
        ("gone.png", "0" * 64, "no picture: image gone.png: no such file", False),
        ("broken.png", "", "no picture: image broken.png: not a", False),
        ("small.png", "0" * 64, "the file has changed since it was matched", True),
    ],
)
def test_what_is_gone_damaged_or_changed_is_remarked(
    tmp_path: Path, image_id: str, sha256: str, remark: str, has_picture: bool
) -> None:
    images = ShownImages()
    images.add("s", image_id, sha256, read, is_pictured=True)
    [image] = images.write(tmp_path)
    assert image.remark.startswith(remark)
    assert image.is_pictured == (tmp_path / PICTURES / "0.jpg").exists() == has_picture


def test_a_warp_has_the_targets_shape_and_is_transparent_where_the_source_does_not_reach(tmp_path: Path) -> None:
    (tmp_path / PICTURES).mkdir()
    source, target = (ShownImage(n, "", "", read, is_pictured=True) for n in (0, 1))
    Image.new("RGB", (100, 100), (200, 30, 30)).save(tmp_path / PICTURES / "0.jpg")
    Image.new("RGB", (1000, 500), (0, 0, 0)).save(tmp_path / PICTURES / "1.jpg")
    corners = np.array([[10, 10], [90, 10], [90, 90], [10, 90], [50, 50], [30, 60], [60, 30]], dtype=np.float32)
    # The originals are twice as large as the pictures; the source lies in the left half of the target.
    warp = ShownWarp(7, source, target, ((200, 200), (2000, 1000)), 2 * corners, 10 * corners)
    gone = ShownWarp(8, source, dataclasses.replace(target, is_pictured=False), ((1, 1), (1, 1)), corners, corners)
    assert list(write_warps([warp, gone], tmp_path)) == [7]
    with Image.open(tmp_path / WARPS / "7.webp") as image:
        pixels = np.asarray(image.convert("RGBA"))
    assert pixels.shape == (320, 640, 4)
    assert pixels[160, 150, 3] == 255 and pixels[160, 150, 0] > 150
    assert pixels[160, 600, 3] == 0
