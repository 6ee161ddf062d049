import base64
import contextlib
import io
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dhpf import images
from dhpf.images import FORMATS, ImageError, decode_image, decoded, read_image, rgb_of


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


GRADIENT = np.tile(np.arange(64, dtype=np.uint8)[None] * 4, (48, 1))
RGB = np.stack([GRADIENT, GRADIENT[:, ::-1], np.full_like(GRADIENT, 90)], axis=-1)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "JPEG", "JPEG2000", "AVIF"])
def test_formats(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind in ("JPEG", "AVIF") else {}
    decoded = decode_image(encoded(Image.fromarray(RGB), kind, **options), "x")
    assert decoded.shape == (48, 64, 3)
    assert np.abs(decoded.astype(int) - RGB).mean() < (6 if kind in ("GIF", "JPEG", "AVIF") else 0.01)


RED_HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA"
    "ACJpbG9jAAAAAERAAAEAAQAAAAABoQABAAAAAAAAAB0AAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRt"
    "AAAAAAABAAAA/WlwcnAAAADdaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMA"
    "AAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5j"
    "bHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBp"
    "eGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAACVtZGF0AAAAGSgBrxOA9SeBP//YlR/+3Pnh93Z1+efLU8A="
)
"""64 x 48 red pixels."""


def test_heic_is_read_with_the_extra_and_named_without() -> None:
    if "HEIF" in FORMATS:
        decoded = decode_image(RED_HEIC, "x")
        assert decoded.shape == (48, 64, 3) and np.abs(decoded.astype(int) - (200, 40, 40)).max() < 9
    else:
        with pytest.raises(
            ImageError, match=re.escape("image x: HEIC is read with an extra: pip install 'dhpf[heic]'")
        ):
            decode_image(RED_HEIC, "x")


def test_sixteen_bits_keep_their_greys() -> None:
    values = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    decoded = decode_image(encoded(Image.fromarray(values), "PNG"), "x")
    assert np.abs(decoded[..., 0].astype(int) - np.rint(values / 257)).max() <= 1


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_white_is_the_largest_value_of_the_bits_that_are_used(bits: int) -> None:
    values = np.linspace(0, 2**bits - 1, 48 * 64).reshape(48, 64).astype(np.uint16)
    decoded = decode_image(encoded(Image.fromarray(values), "PNG"), "x")
    assert np.abs(decoded[..., 1].astype(int) - np.rint(values * (255 / (2**bits - 1)))).max() <= 1


def turned(picture: Image.Image) -> Image.Image:
    picture.getexif()[0x0112] = 6  # to be shown turned by a quarter
    return picture


PICTURES = {
    "colours": Image.fromarray(RGB),
    "turned": turned(Image.fromarray(RGB)),
    "greys": Image.fromarray(GRADIENT),
    "greys of 16 bits": Image.fromarray(GRADIENT.astype(np.uint16) * 16),
    "see-through": Image.fromarray(np.dstack([RGB, GRADIENT])),
    "grey and see-through": Image.fromarray(np.dstack([GRADIENT, GRADIENT]), "LA"),
    "palette": Image.fromarray(RGB).quantize(),
    "two colours": Image.fromarray(GRADIENT > 100),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_in_memory_is_decoded_as_its_file(name: str, tmp_path: Path) -> None:
    picture = PICTURES[name]
    picture.save(tmp_path / "x.png", exif=picture.getexif())
    from_file = read_image(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as opened:
        np.testing.assert_array_equal(rgb_of(opened, "x"), from_file)
    np.testing.assert_array_equal(rgb_of(picture, "x"), from_file)
    assert name == "turned" or from_file.shape == (48, 64, 3)
    assert name != "turned" or from_file.shape == (64, 48, 3)
    if picture.mode in ("L", "RGB", "RGBA", "I;16") and name != "turned":
        np.testing.assert_array_equal(rgb_of(np.asarray(picture), "x"), from_file)


@pytest.mark.parametrize(
    "array",
    [RGB.astype(np.float32), RGB.astype(np.uint16), RGB[None], RGB[..., :2], GRADIENT.astype(bool), RGB[:0]],
)
def test_other_arrays_are_refused_with_their_shape(array: NDArray[Any]) -> None:
    with pytest.raises(ImageError, match=f"image x: an array must be .*{re.escape(str(array.shape))} {array.dtype}"):
        rgb_of(array, "x")


def test_a_picture_whose_file_ends_early_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(encoded(Image.fromarray(np.tile(RGB, (9, 9, 1))), "JPEG")[:-900])
    with Image.open(tmp_path / "x.jpg") as opened, pytest.raises(ImageError, match="image x: damaged or truncated"):
        rgb_of(opened, "x")


def test_a_picture_of_too_many_pixels_is_refused() -> None:
    with pytest.raises(ImageError, match="20000 x 6000 pixels"):
        rgb_of(Image.new("1", (20_000, 6_000)), "x")


def test_sixteen_bits_in_the_other_byte_order() -> None:
    """A TIFF of 4 x 4 pixels written by hand, big-endian, which Pillow does not write."""
    pixels = np.full(16, 0x8000, ">u2").tobytes()
    shorts = {256: 4, 257: 4, 258: 16, 259: 1, 262: 1}
    fields = [struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in shorts.items()]
    fields += [struct.pack(">HHII", tag, 4, 1, value) for tag, value in ((273, 8), (278, 4), (279, len(pixels)))]
    header = b"MM\0*" + struct.pack(">I", 8 + len(pixels))
    data = header + pixels + struct.pack(">H", len(fields)) + b"".join(fields) + bytes(4)
    assert (decode_image(data, "x") == 128).all()


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_thirty_two_bits_have_no_agreed_white(kind: type) -> None:
    with pytest.raises(ImageError, match="image x: 32 bits per channel; save it with 8 or 16"):
        decode_image(encoded(Image.fromarray(np.ones((4, 4), kind)), "TIFF"), "x")


def test_colours_of_sixteen_bits() -> None:
    rows = b"".join(b"\0" + np.tile(np.array([0x8000, 0xFFFF, 0x0101], ">u2"), 4).tobytes() for _ in range(4))
    assert (decode_image(png_of((4, 4), 16, rows), "x") == (128, 255, 1)).all()


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    decoded = decode_image(encoded(Image.fromarray(RGB), "JPEG", exif=exif, quality=95), "x")
    assert decoded.shape == (64, 48, 3)
    assert np.abs(decoded.astype(int) - np.rot90(RGB, -1)).mean() < 6


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_broken_exif_is_no_reason_to_refuse_a_photo(exif: bytes) -> None:
    assert decode_image(encoded(Image.fromarray(RGB), "JPEG", exif=exif), "x").shape == (48, 64, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG", "MPO"])
def test_of_several_frames_the_first_counts(kind: str) -> None:
    white, black = (Image.new("RGB", (64, 48), name) for name in ("white", "black"))
    assert (decode_image(encoded(white, kind, save_all=True, append_images=[black]), "x") > 250).all()


def test_transparency_goes_on_white() -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (decode_image(encoded(image, "PNG"), "x") == 255).all()
    palette = Image.fromarray(RGB).convert("P")
    assert (decode_image(encoded(palette, "PNG", transparency=palette.getpixel((0, 0))), "x")[0, 0] == 255).all()


def test_cmyk() -> None:
    decoded = decode_image(encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95), "x")
    assert np.abs(decoded.astype(int) - RGB).mean() < 12


def png_of(size: tuple[int, int], bits: int, rows: bytes) -> bytes:
    """An RGB PNG whose header claims a size that its pixels need not have."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", *size, bits, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a JPEG"),
        (np.random.default_rng(0).bytes(5000), "not a JPEG"),
        (encoded(Image.fromarray(RGB), "JPEG")[:-300], "damaged or truncated"),
        (encoded(Image.fromarray(RGB), "PNG")[:-40], "damaged or truncated"),
        (encoded(Image.fromarray(RGB), "GIF")[:-300], "damaged or truncated"),
        (encoded(Image.fromarray(RGB), "WEBP")[:-90], "damaged or truncated"),
        (encoded(Image.fromarray(RGB), "TIFF")[:-900], "damaged or truncated"),
        (encoded(Image.fromarray(RGB), "PNG").replace(b"IDAT", b"IDAX"), "damaged or truncated|not a JPEG"),
        (png_of((60000, 60000), 8, b""), "declares far more than the 100,000,000 pixels"),
        (png_of((12000, 9000), 8, b""), "12000 x 9000 pixels, more than 100,000,000"),
        (png_of((0, 9), 8, b""), "not a JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a JPEG"),
    ],
)
def test_what_is_no_image(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=f"image holiday.jpg: .*({reason})"):
        decode_image(data, "holiday.jpg")


def test_a_missing_file() -> None:
    with pytest.raises(ImageError, match="nowhere.png: no such file"):
        read_image("nowhere.png")


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("JPEG2000", {})])
@pytest.mark.parametrize(("limit", "size"), [(48 * 64, (64, 48)), (48 * 64 - 1, (32, 24)), (12 * 16, (16, 12))])
def test_what_has_too_many_pixels_is_decoded_smaller(
    kind: str, options: dict[str, Any], limit: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", limit)
    data, reserved = encoded(Image.fromarray(RGB), kind, **options), list[int]()

    @contextlib.contextmanager
    def reserve(num_bytes: int) -> Iterator[None]:
        reserved.append(num_bytes)
        yield
        reserved.append(-num_bytes)

    with decoded(data, "x", reserve) as image:
        assert image.size == (64, 48) and image.picture.size == size
        small = np.asarray(Image.fromarray(RGB).resize(size, Image.Resampling.BOX)).astype(int)
        assert np.abs(np.asarray(image.picture) - small).mean() < 8
        assert len(reserved) == 1 and 8 * size[0] * size[1] <= reserved[0] - len(data) <= 8 * limit
    assert sum(reserved) == 0
    if size != (64, 48):
        with pytest.raises(ImageError, match="image x: 64 x 48 pixels, more than .* are not read whole"):
            decode_image(data, "x")


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("JPEG", {"progressive": True})])
def test_what_cannot_be_decoded_smaller_is_refused_with_what_can(
    kind: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    data = encoded(Image.fromarray(RGB), kind, **options)
    with pytest.raises(ImageError, match="64 x 48 pixels, more than 1,000 are only read of JPEG 2000 and of JPEG"):
        decode_image(data, "x")
