"""Photos that installed packages ship, and warped views of them: real images with exact keypoints, no download.

A view is rendered by a map from its points to points of the photo. The same map takes keypoints that are drawn in the
view to their exact places in the photo. No photo is in two of the splits train, val and test.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from PIL import Image

from dhpf.errors import InputError
from dhpf.images import RGB, ImageError, read_image
from dhpf.pairs.source import require_split
from dhpf.records import PairRecord, Points, Rejection

Floats = NDArray[np.float64]

PHOTOS = {
    "train": ("astronaut", "coffee", "rocket", "camera", "flower", "coins", "retina", "clock_motion"),
    "val": ("grace_hopper", "ihc"),
    "test": ("chelsea", "china", "motorcycle_left"),
}

_SKIMAGE_PNG = ("astronaut", "coffee", "camera", "coins", "clock_motion", "chelsea", "ihc", "motorcycle_left")
_FILES = {
    **{name: ("skimage", f"data/{name}.png") for name in (*_SKIMAGE_PNG, "motorcycle_right")},
    **{name: ("skimage", f"data/{name}.jpg") for name in ("rocket", "retina")},
    **{name: ("sklearn", f"datasets/images/{name}.jpg") for name in ("flower", "china")},
    "grace_hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
}
"""Package and file below it; the packages are looked for when a photo is read, and never imported."""

LONGEST_SIDE = 300
"""Photos are scaled to this longest side in pixels, as the PF benchmarks' images are."""

NUM_STEREO_PAIRS = 4
_CONTROL_POINTS = 4
_ORIGINAL = "photo"


@dataclass(frozen=True)
class PhotoWarps:
    """Pairs of a photo and a warped view of it, in either order, and a true stereo pair in the test split.

    Attributes:
        seed: of warps and keypoints.
        views: warped views per photo.
        keypoints: at most this many per pair.
        strength: 1 for rotations to 30 degrees, scales of 0.7 to 1.4 and bends of 6 % of the side; 0 for none.
    """

    seed: int = 0
    views: int = 20
    keypoints: int = 12
    strength: float = 1.0

    splits = ("train", "val", "test")
    thresholds = ("image",)

    def __post_init__(self) -> None:
        if not 1 <= self.views <= 1000:
            raise InputError(f"photo_warps.views: {self.views} is outside 1 to 1000")
        if not 1 <= self.keypoints <= 100:
            raise InputError(f"photo_warps.keypoints: {self.keypoints} is outside 1 to 100")
        if not 0 <= self.strength <= 2:
            raise InputError(f"photo_warps.strength: {self.strength} is outside 0 to 2")

    def pairs(self, split: str) -> Iterator[PairRecord | Rejection]:
        require_split(split, self.splits, "photo_warps")
        for photo in PHOTOS[split]:
            for view in range(self.views):
                yield self._view_pair(photo, view)
        if split == "test":
            for number in range(NUM_STEREO_PAIRS):
                yield self._stereo_pair(number)

    def read(self, image_id: str) -> bytes:
        photo, _, name = image_id.partition("/")
        stem, _, ending = name.partition(".")
        if photo not in _FILES or ending != "png" or not (stem == _ORIGINAL or stem.removeprefix("view").isdecimal()):
            raise ImageError(f"image {image_id!r}: photo_warps has no such image")
        pixels = load_photo(photo) if stem == _ORIGINAL else self._render(photo, int(stem.removeprefix("view")))
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
        return buffer.getvalue()

    def stamp(self, image_id: str) -> None:
        """None: the images are made of photos of installed packages."""

    def _random(self, *what: object) -> np.random.Generator:
        digest = hashlib.sha256(repr((self.seed, *what)).encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))

    def warp(self, photo: str, view: int) -> Warp:
        """The backward map of a view: its pixels -> the photo's pixels."""
        height, width = load_photo(photo).shape[:2]
        return Warp.draw(self._random("warp", photo, view), (width, height), self.strength)

    def _render(self, photo: str, view: int) -> RGB:
        return relight(render(load_photo(photo), self.warp(photo, view)), self._random("light", photo, view))

    def _view_pair(self, photo: str, view: int) -> PairRecord:
        random = self._random("keypoints", photo, view)
        in_view, in_photo = draw_keypoints(load_photo(photo), self.warp(photo, view), self.keypoints, random)
        images, points = (f"{photo}/{_ORIGINAL}.png", f"{photo}/view{view:03d}.png"), (in_photo, in_view)
        if random.random() < 0.5:
            images, points = images[::-1], points[::-1]
        return PairRecord(f"{photo}-{view:03d}", photo, *images, *points)

    def _stereo_pair(self, number: int) -> PairRecord:
        left_points, right_points = stereo_keypoints(self.keypoints, self._random("stereo", number))
        images = (f"motorcycle_left/{_ORIGINAL}.png", f"motorcycle_right/{_ORIGINAL}.png")
        points = (left_points, right_points)
        if number % 2:
            images, points = images[::-1], points[::-1]
        return PairRecord(f"motorcycle-stereo-{number}", "motorcycle_stereo", *images, *points)


@dataclass(frozen=True)
class Warp:
    """A thin-plate spline on top of an affine map, in pixels.

    Attributes:
        controls: (C, 2) control points.
        affine: (3, 2) constant, x and y part.
        bends: (C, 2) weight of each control point's kernel.
    """

    controls: Floats
    affine: Floats
    bends: Floats

    @classmethod
    def draw(cls, random: np.random.Generator, size: tuple[int, int], strength: float) -> Warp:
        """A random warp of an image of (width, height) pixels, about its centre."""
        extent = np.array(size, dtype=np.float64)
        steps = np.linspace(0.0, 1.0, _CONTROL_POINTS)
        controls = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2) * extent
        angle = np.deg2rad(random.uniform(-30, 30)) * strength
        zoom = np.exp(random.uniform(np.log(0.7), np.log(1.4)) * strength)
        shear = random.uniform(-0.15, 0.15) * strength
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = turn @ np.array([[1.0, shear], [0.0, 1.0]]) / zoom
        moved = (controls - extent / 2) @ matrix.T + extent / 2
        moved += random.uniform(-0.08, 0.08, size=2) * extent * strength
        moved += random.normal(0, 0.03, size=controls.shape) * extent.max() * strength
        return cls.through(controls, moved)

    @classmethod
    def through(cls, controls: Floats, moved: Floats) -> Warp:
        """The smoothest map that takes each control point to where it moved (Bookstein, 1989)."""
        count = len(controls)
        linear = np.hstack([np.ones((count, 1)), controls])
        system = np.block([[_kernel(controls, controls), linear], [linear.T, np.zeros((3, 3))]])
        solution = np.linalg.solve(system, np.vstack([moved, np.zeros((3, 2))]))
        return cls(controls, solution[count:], solution[:count])

    def __call__(self, points: Floats) -> Floats:
        """(K, 2) points mapped."""
        linear = np.hstack([np.ones((len(points), 1)), points])
        mapped: Floats = linear @ self.affine + _kernel(points, self.controls) @ self.bends
        return mapped


def _kernel(points: Floats, centres: Floats) -> Floats:
    squared: Floats = (points[:, None, 0] - centres[:, 0]) ** 2 + (points[:, None, 1] - centres[:, 1]) ** 2
    return squared * np.log(np.maximum(squared, 1e-12))


def _shipped_file(package: str, name: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise InputError(f"photo_warps: reads photos of the package {package}, which is not installed")
    return Path(spec.origin).parent / name


@lru_cache(maxsize=4)
def load_photo(name: str) -> RGB:
    """A shipped photo in RGB, scaled to LONGEST_SIDE."""
    image = Image.fromarray(read_image(_shipped_file(*_FILES[name])))
    scale = LONGEST_SIDE / max(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS))


def render(pixels: RGB, warp: Warp) -> RGB:
    """The view of an image; beyond the image's border stands its mirror image.

    `warp` maps points of the view to points of the image.

    Pixel (column, row) covers the point (column + 0.5, row + 0.5).
    """
    height, width = pixels.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    origins = warp(np.stack((columns.ravel(), rows.ravel()), axis=1)) - 0.5
    grid = [origins[:, 1].reshape(height, width), origins[:, 0].reshape(height, width)]
    channels = [scipy.ndimage.map_coordinates(pixels[..., c], grid, order=1, mode="mirror") for c in range(3)]
    return np.stack(channels, axis=-1)


def relight(pixels: RGB, random: np.random.Generator) -> RGB:
    """The view as in other light and by another camera: mixed colours, other contrast, a shadow, blur and noise."""
    values = pixels.astype(np.float64) / 255
    saturation = random.uniform(0.0, 1.3)
    grey = values.mean(axis=2, keepdims=True)
    values = np.clip(grey + saturation * (values - grey), 0, 1)
    mixing = np.eye(3) + random.uniform(-0.25, 0.25, size=(3, 3))
    values = np.clip(values @ mixing, 0, 1) ** random.uniform(0.5, 2.0)
    height, width = values.shape[:2]
    slope = random.uniform(-0.6, 0.6, size=2)
    shadow = 1 + slope[0] * np.linspace(-0.5, 0.5, height)[:, None] + slope[1] * np.linspace(-0.5, 0.5, width)[None]
    values = values * shadow[..., None] * random.uniform(0.8, 1.2)
    values = scipy.ndimage.gaussian_filter(values, (blur := random.uniform(0, 1.6), blur, 0))
    values += random.normal(0, random.uniform(0, 0.06), size=values.shape)
    lit: RGB = np.clip(255 * values, 0, 255).astype(np.uint8)
    return lit


def draw_keypoints(
    pixels: RGB, warp: Warp, count: int, random: np.random.Generator, margin: float = 6.0
) -> tuple[Points, Points]:
    """(K, 2) points in the view and where they lie in the photo: at most `count`, on texture and well apart."""
    height, width = pixels.shape[:2]
    in_view = random.uniform((margin, margin), (width - margin, height - margin), size=(400, 2))
    in_photo = warp(in_view)
    inside = ((in_photo > margin) & (in_photo < (width - margin, height - margin))).all(axis=1)
    in_view, in_photo = in_view[inside], in_photo[inside]
    order = np.argsort(-_texture(pixels)[in_photo[:, 1].astype(int), in_photo[:, 0].astype(int)], kind="stable")
    chosen = _well_apart(in_view[order], count)
    return in_view[order][chosen].astype(np.float32), in_photo[order][chosen].astype(np.float32)


def stereo_keypoints(count: int, random: np.random.Generator) -> tuple[Points, Points]:
    """Points of the left motorcycle photo and of the right one, by the true disparity that comes with them."""
    with np.load(_shipped_file("skimage", "data/motorcycle_disp.npz"), allow_pickle=False) as archive:
        disparity = archive["arr_0"]
    pixels = load_photo("motorcycle_left")
    scale = pixels.shape[1] / disparity.shape[1]
    rows = random.integers(0, disparity.shape[0], size=400)
    columns = random.integers(0, disparity.shape[1], size=400)
    shift = disparity[rows, columns]
    left = np.stack((columns + 0.5, rows + 0.5), axis=1) * scale
    right = np.stack((columns + 0.5 - shift, rows + 0.5), axis=1) * scale
    height, width = pixels.shape[:2]
    known = np.isfinite(shift) & (right[:, 0] > 0) & (left < (width, height)).all(axis=1)
    left, right = left[known], right[known]
    order = np.argsort(-_texture(pixels)[left[:, 1].astype(int), left[:, 0].astype(int)], kind="stable")
    chosen = _well_apart(left[order], count)
    return left[order][chosen].astype(np.float32), right[order][chosen].astype(np.float32)


def _texture(pixels: RGB) -> Floats:
    grey = pixels.astype(np.float64).mean(axis=2)
    smoothed: Floats = scipy.ndimage.gaussian_filter(scipy.ndimage.gaussian_gradient_magnitude(grey, 1.0), 3.0)
    return smoothed


def _well_apart(points: Floats, count: int, distance: float = 25.0) -> list[int]:
    """Indices of the first points that keep their distance in pixels from those chosen before."""
    chosen: list[int] = []
    for index, point in enumerate(points):
        if all(np.hypot(*(point - points[other])) >= distance for other in chosen):
            chosen.append(index)
        if len(chosen) == count:
            break
    return chosen
