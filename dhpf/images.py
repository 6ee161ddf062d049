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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features

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
"""Images that declare more pixels than this are refused."""

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


def decode_image(data: bytes, name: str) -> RGB:
    """Decodes an image file as people see it: EXIF orientation applied, transparency put on white.

    Args:
        data: the bytes of the file.
        name: how to call the image in an error.

    Returns:
        (H, W, 3) uint8 array.

    Raises:
        ImageError: not one of FORMATS, damaged, truncated, 32 bits per channel, or more than MAX_PIXELS.
    """
    expected = f"{', '.join(FORMATS)} image ({len(data)} bytes)"
    if data[4:8] == b"ftyp" and data[8:12] not in (b"avif", b"avis"):
        _prepare_heif(name)
    with _named_errors(name, expected), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return _decoded(image, name)


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
    with _named_errors(name, "image"):
        return _decoded(image, name)


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


def _decoded(image: Image.Image, name: str) -> RGB:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"image {name}: {width} x {height} pixels, more than {MAX_PIXELS:,} are refused")
    if image.mode in ("I", "F"):
        raise ImageError(f"image {name}: 32 bits per channel; save it with 8 or 16")
    image.load()
    return np.ascontiguousarray(_to_rgb(ImageOps.exif_transpose(image)))


def _to_rgb(image: Image.Image) -> RGB:
    if image.mode.startswith("I;16"):
        return np.repeat(_eight_bits(np.asarray(image))[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    return np.asarray(image.convert("RGB"))


def _eight_bits(greys: NDArray[Any]) -> NDArray[np.uint8]:
    """Greys of up to 16 bits as 8; white is the largest value of as many bits as the image uses."""
    used = next(bits for bits in GREY_BITS if greys.max() < 2**bits)
    scaled: NDArray[np.uint8] = np.rint(greys.astype(np.float32) * (255 / (2**used - 1))).astype(np.uint8)
    return scaled


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
