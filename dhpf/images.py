"""Decodes image files that are not trusted, and pictures in memory, into RGB arrays, or says why it does not.

Only a few raster formats are read, and their declared size is checked before a pixel is decoded. Greys of 16 bits,
which Pillow would damage without a word, are scaled to 8 by the bits that they use: scanners and cameras put 10, 12 or
14 into 16, which else were nearly black. 32 bits are refused: nothing says which value is white.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, Jpeg2KImagePlugin, JpegImagePlugin, UnidentifiedImageError, features

from dhpf.errors import InputError
from dhpf.regular_files import Stamp, UnreadableFile, read_regular

_ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "JPEG2000": (".jp2", ".j2k"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
}
"""File name endings (lower case) of the formats that are read, each by Pillow's name."""

_OF_A_BUILD = {"JPEG2000": "jpg_2000", "AVIF": "avif"}
"""Formats that not every build of Pillow reads, with its names of what reads them."""

_HEIF_READER = "pi_heif"

FORMATS = tuple(
    name
    for name in _ENDINGS
    if (importlib.util.find_spec(_HEIF_READER) if name == "HEIF" else features.check(_OF_A_BUILD.get(name, "zlib")))
)
"""Raster formats that are read here; of an animation or a multi-page file, the first frame."""

EXTENSIONS = tuple(ending for name in FORMATS for ending in _ENDINGS[name])
"""File name endings (lower case) that a folder of images is searched for."""

HEIC_REMEDY = "HEIC is read with an extra: pip install 'dhpf[heic]'"

GREY_BITS = (10, 12, 14, 16)
"""Depths of the greys that cameras and scanners give, which files hold in 16 bits."""

MAX_PIXELS = 100_000_000
"""No more pixels are decoded; of larger images only some formats are read, smaller (see `decoded`)."""

_STRIP = 256
"""Rows that are put on white at once."""

_REDUCIBLE: dict[bytes, Callable[[io.BytesIO], Image.Image]] = {
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    b"\0\0\0\x0cjP  ": Jpeg2KImagePlugin.Jpeg2KImageFile,
    b"\xff\x4f\xff\x51": Jpeg2KImagePlugin.Jpeg2KImageFile,
}
"""What opens formats that can be decoded smaller, by how their files begin; Image.open refuses very large ones."""

_ORIENTATION = 0x0112
"""EXIF's tag of how an image is to be turned."""

MAX_FILE_BYTES = 1_000_000_000
"""Image files of more bytes than this are not read."""

RGB = NDArray[np.uint8]


def is_image_name(path: str) -> bool:
    """Whether a file is an image of a format that is read here, by its name."""
    return path.lower().endswith(EXTENSIONS)


def unreadable_format(path: str) -> str | None:
    """Why a file that is an image by its name is not read here; None for any other file."""
    known = next((name for name, endings in _ENDINGS.items() if path.lower().endswith(endings)), None)
    if known is None or known in FORMATS:
        return None
    return HEIC_REMEDY if known == "HEIF" else f"this Pillow was built without {known}"


def is_text(name: str) -> bool:
    """Whether a file name is UTF-8 text; a table holds no other."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    """A file name as text that any table can hold: bytes that are not UTF-8 are written as \\udcXX."""
    return name.encode("utf-8", "backslashreplace").decode()


class ImageError(InputError):
    """An image that cannot be used; the message names it and says why."""


def require_text(name: str) -> None:
    """Raises ImageError for an image whose file name is no UTF-8 text."""
    if not is_text(name):
        raise ImageError(f"image {printable(name)}: its name is not UTF-8 text; rename the file")


@dataclass(frozen=True)
class DecodedImage:
    """An image as people see it: EXIF orientation applied, transparency put on white.

    Attributes:
        picture: in RGB; smaller than the original where that has more than MAX_PIXELS.
        size: (width, height) of the original in pixels.
    """

    picture: Image.Image
    size: tuple[int, int]


Reserve = Callable[[int], AbstractContextManager[object]]
"""Takes a number of bytes and gives a context in which so much memory may be used."""


@contextlib.contextmanager
def decoded(data: bytes, name: str, reserve: Reserve = contextlib.nullcontext) -> Iterator[DecodedImage]:
    """Decodes an image file.

    Of more than MAX_PIXELS a JPEG or a JPEG 2000 is decoded at a half, a quarter or an eighth of its sides, the first
    of these that has no more.

    Args:
        data: the bytes of the file.
        name: how to call the image in an error.
        reserve: called with about the bytes that decoding takes, before it begins; its context ends with this one.

    Raises:
        ImageError: not one of FORMATS, damaged, truncated, 32 bits per channel, or of too many pixels.
    """
    expected = f"{', '.join(FORMATS)} image ({len(data)} bytes)"
    if data[4:8] == b"ftyp" and data[8:12] not in (b"avif", b"avis"):
        _prepare_heif(name)
    with contextlib.ExitStack() as until_used:
        with _named_errors(name, expected), _opened(data) as image:
            size = image.size
            _reduce(image, name)
            until_used.enter_context(reserve(_bytes_to_decode(image) + len(data)))
            picture = _decoded(image, name)
            turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
        yield DecodedImage(picture, (size[1], size[0]) if turned else size)


def decode_image(data: bytes, name: str) -> RGB:
    """Decodes an image file of which every pixel is wanted.

    Args:
        data: the bytes of the file.
        name: how to call the image in an error.

    Returns:
        (H, W, 3) uint8 array.

    Raises:
        ImageError: as `decoded`, or more than MAX_PIXELS.
    """
    with decoded(data, name) as image:
        if image.picture.size != image.size:
            width, height = image.size
            raise ImageError(f"image {name}: {width} x {height} pixels, more than {MAX_PIXELS:,} are not read whole")
        return np.ascontiguousarray(np.asarray(image.picture))


def rgb_of(image: Image.Image | NDArray[Any], name: str) -> RGB:
    """A picture in memory as its file would be decoded.

    Args:
        image: a Pillow image, or an array: (H, W) or (H, W, 1) greys of 8 or 16 bits, (H, W, 3) colours or (H, W, 4)
            colours and opacity of 8 bits.
        name: how to call the image in an error.

    Returns:
        (H, W, 3) uint8 array.

    Raises:
        ImageError: an array of another shape or type, or see `decode_image`.
    """
    if isinstance(image, np.ndarray):
        kinds = {(2, 1): ("uint8", "uint16"), (3, 1): ("uint8", "uint16"), (3, 3): ("uint8",), (3, 4): ("uint8",)}
        channels = image.shape[2] if image.ndim == 3 else 1
        if image.dtype.name not in kinds.get((image.ndim, channels), ()) or not image.size:
            raise ImageError(
                f"image {name}: an array must be (H, W, 3), (H, W, 4) or (H, W) uint8, or (H, W) uint16, "
                f"not {image.shape} {image.dtype}"
            )
        if channels == 3:
            return image
        image = Image.fromarray(image.reshape(image.shape[:2]) if channels == 1 else image)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"image {name}: {width} x {height} pixels, more than {MAX_PIXELS:,} are refused")
    with _named_errors(name, "image"):
        return np.ascontiguousarray(np.asarray(_decoded(image, name)))


def _prepare_heif(name: str) -> None:
    """Teaches Pillow the format HEIF, if the extra is installed."""
    if "HEIF" not in FORMATS:
        raise ImageError(f"image {name}: {HEIC_REMEDY}")
    importlib.import_module(_HEIF_READER).register_heif_opener()


@contextlib.contextmanager
def _named_errors(name: str, expected: str) -> Iterator[None]:
    """Turns what decoding raises into an ImageError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"image {name}: declares far more than the {MAX_PIXELS:,} pixels that are read") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"image {name}: not a {expected}") from error
    # Decoders raise many kinds of errors on hostile bytes; each one means the same here.
    except Exception as error:
        raise ImageError(f"image {name}: damaged or truncated ({error})") from error


def _opened(data: bytes) -> Image.Image:
    """An image whose pixels are still to be decoded."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        reducible = next((kind for magic, kind in _REDUCIBLE.items() if data.startswith(magic)), None)
        if reducible is None:
            raise
        return reducible(io.BytesIO(data))


def _reduce(image: Image.Image, name: str) -> None:
    """Has an image of more than MAX_PIXELS decoded smaller, where its format allows that."""
    width, height = image.size
    steps = next((n for n in range(4) if (width >> n) * (height >> n) <= MAX_PIXELS), None)
    if steps == 0:
        return
    if steps and isinstance(image, JpegImagePlugin.JpegImageFile) and not image.info.get("progressive"):
        image.draft(None, (width >> steps, height >> steps))
    elif steps and isinstance(image, Jpeg2KImagePlugin.Jpeg2KImageFile):
        image.reduce = steps
    else:
        raise ImageError(
            f"image {name}: {width} x {height} pixels, more than {MAX_PIXELS:,} are only read of JPEG 2000 and of JPEG "
            "that is not progressive, up to 8 times as wide and high; save it as such, or smaller"
        )


def _bytes_to_decode(image: Image.Image) -> int:
    """About what Pillow's picture and one copy of it take, and a progressive JPEG's coefficients."""
    width, height = image.size
    return min(width * height, MAX_PIXELS) * (14 if image.info.get("progressive") else 8)


def _decoded(image: Image.Image, name: str) -> Image.Image:
    if image.mode in ("I", "F"):
        raise ImageError(f"image {name}: 32 bits per channel; save it with 8 or 16")
    image.load()
    is_upright = image.getexif().get(_ORIENTATION, 1) == 1  # Pillow would copy it all the same
    return _to_rgb(image if is_upright else ImageOps.exif_transpose(image))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """A picture with transparency on white, made strip by strip, because the whole would be held several times."""
    opaque = Image.new("RGB", image.size)
    for top in range(0, image.height, _STRIP):
        strip = (0, top, image.width, min(top + _STRIP, image.height))
        white = Image.new("RGBA", (image.width, strip[3] - top), "white")
        part = image.crop(strip)
        white.alpha_composite(part.convert("RGBA"))
        opaque.paste(white.convert("RGB"), strip)
    return opaque


def _eight_bits(greys: NDArray[Any]) -> NDArray[np.uint8]:
    """Greys of up to 16 bits as 8; white is the largest value of as many bits as the image uses."""
    used = next(bits for bits in GREY_BITS if greys.max() < 2**bits)
    scaled = np.rint(np.arange(2**used, dtype=np.float32) * (255 / (2**used - 1))).astype(np.uint8)
    eight: NDArray[np.uint8] = scaled[greys]
    return eight


def read_image(path: str | Path) -> RGB:
    """Reads an image file.

    Raises:
        ImageError: the file is missing, unreadable, or not an image (see `decode_image`).
    """
    return decode_image(read_bytes(path), str(path))


def read_bytes(path: str | Path, listed: Stamp | None = None) -> bytes:
    """The bytes of an image file.

    Args:
        listed: the stamp that it had and must still have.

    Raises:
        ImageError: the file is missing, no regular file, too large, has another stamp, or cannot be read.
    """
    try:
        return read_regular(path, f"image {path}", MAX_FILE_BYTES, listed)
    except UnreadableFile as error:
        raise ImageError(str(error)) from error
    except FileNotFoundError as error:
        raise ImageError(f"image {path}: no such file") from error
    except OSError as error:
        raise ImageError(f"image {path}: cannot be read ({error.strerror})") from error
