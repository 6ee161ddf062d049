import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dhpf.images import ImageError, decode_image, read_image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


GRADIENT = np.tile(np.arange(64, dtype=np.uint8)[None] * 4, (48, 1))
RGB = np.stack([GRADIENT, GRADIENT[:, ::-1], np.full_like(GRADIENT, 90)], axis=-1)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "JPEG"])
def test_formats(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    decoded = decode_image(encoded(Image.fromarray(RGB), kind, **options), "x")
    assert decoded.shape == (48, 64, 3)
    assert np.abs(decoded.astype(int) - RGB).mean() < (6 if kind in ("GIF", "JPEG") else 0.01)


def test_sixteen_bits_keep_their_greys() -> None:
    values = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    decoded = decode_image(encoded(Image.fromarray(values), "PNG"), "x")
    assert np.abs(decoded[..., 0].astype(int) - np.rint(values / 257)).max() <= 1


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    decoded = decode_image(encoded(Image.fromarray(RGB), "JPEG", exif=exif, quality=95), "x")
    assert decoded.shape == (64, 48, 3)
    assert np.abs(decoded.astype(int) - np.rot90(RGB, -1)).mean() < 6


def test_transparency_goes_on_white() -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (decode_image(encoded(image, "PNG"), "x") == 255).all()
    palette = Image.fromarray(RGB).convert("P")
    assert (decode_image(encoded(palette, "PNG", transparency=palette.getpixel((0, 0))), "x")[0, 0] == 255).all()


def test_cmyk() -> None:
    decoded = decode_image(encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95), "x")
    assert np.abs(decoded.astype(int) - RGB).mean() < 12


def bomb() -> bytes:
    """A PNG of a few bytes that declares 60000 x 60000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a JPEG"),
        (np.random.default_rng(0).bytes(5000), "not a JPEG"),
        (encoded(Image.fromarray(RGB), "JPEG")[:-300], "damaged or truncated"),
        (encoded(Image.fromarray(RGB), "PNG")[:-40], "damaged or truncated"),
        (bomb(), "60000 x 60000 pixels|damaged"),
    ],
)
def test_what_is_no_image(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=f"image holiday.jpg: .*({reason})"):
        decode_image(data, "holiday.jpg")


def test_a_missing_file() -> None:
    with pytest.raises(ImageError, match="nowhere.png: no such file"):
        read_image("nowhere.png")
