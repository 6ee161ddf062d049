"""Pictures of matches, warps, masks, layer selections and scores; one palette, one font, legible at a glance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import matplotlib.ticker
import numpy as np
import scipy.interpolate
import scipy.ndimage
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dhpf.images import RGB
from dhpf.records import Points

Picture = RGB | Figure

IMAGE_HEIGHT = 400
MAX_IMAGE_WIDTH = 900
GAP = 12
STRIP_HEIGHT = 44
SUPERSAMPLING = 2

INK, PAPER = (34, 34, 34), (255, 255, 255)
RIGHT, WRONG = (0, 114, 178), (213, 94, 0)
"""Blue and vermilion of Okabe and Ito's colour-blind safe palette."""

METHOD_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999")

MIN_POINTS_TO_BEND, MIN_POINTS_TO_FIT, MAX_POINTS_TO_BEND = 6, 3, 200


def save_picture(picture: Picture, path: str | Path) -> None:
    """Writes an RGB array or a figure as PNG."""
    if isinstance(picture, Figure):
        picture.savefig(path, format="png", dpi=110, bbox_inches="tight", facecolor="white")
    else:
        Image.fromarray(picture).save(path, format="PNG")


# -- pairs -------------------------------------------------------------------------------------------------------


class _Pair:
    """Two images side by side at one height, drawn at twice the size and reduced at the end."""

    def __init__(self, source: RGB, target: RGB, title: str) -> None:
        self._left, self._right = _fitted(source), _fitted(target)
        width = self._left.width + GAP + self._right.width
        self.strip = STRIP_HEIGHT if title else 0
        height = self.strip + max(self._left.height, self._right.height)
        k = SUPERSAMPLING
        self.canvas = Image.new("RGB", (width * k, height * k), PAPER)
        self.canvas.paste(self._left.resize((self._left.width * k, self._left.height * k)), (0, self.strip * k))
        offset = (self._left.width + GAP) * k
        self.canvas.paste(self._right.resize((self._right.width * k, self._right.height * k)), (offset, self.strip * k))
        self._scales = [
            np.array([self._left.width / source.shape[1], self._left.height / source.shape[0]]),
            np.array([self._right.width / target.shape[1], self._right.height / target.shape[0]]),
        ]
        self._offsets = [np.array([0, self.strip]), np.array([self._left.width + GAP, self.strip])]
        self.draw = ImageDraw.Draw(self.canvas)
        if title:
            self.draw.text((8 * k, 12 * k), _shortened(title, width), fill=INK, font=ImageFont.load_default(15 * k))

    def source(self, point: NDArray[np.float32]) -> tuple[float, float]:
        """A source point's place on the canvas."""
        return self._place(point, 0)

    def target(self, point: NDArray[np.float32]) -> tuple[float, float]:
        """A target point's place on the canvas."""
        return self._place(point, 1)

    def _place(self, point: NDArray[np.float32], side: int) -> tuple[float, float]:
        x, y = (point * self._scales[side] + self._offsets[side]) * SUPERSAMPLING
        return float(x), float(y)

    def finished(self) -> RGB:
        """The picture at its final size."""
        width, height = self.canvas.width // SUPERSAMPLING, self.canvas.height // SUPERSAMPLING
        return np.asarray(self.canvas.resize((width, height), Image.Resampling.LANCZOS))


def draw_matches(
    source: RGB,
    target: RGB,
    source_points: Points,
    predicted_points: Points,
    *,
    true_points: Points | None = None,
    valid: NDArray[np.bool_] | None = None,
    confidence: NDArray[np.float32] | None = None,
    title: str = "",
) -> RGB:
    """Source and target side by side with a line per match, each in its own colour.

    Args:
        source, target: (H, W, 3).
        source_points, predicted_points: (K, 2) in original pixels.
        true_points: (K, 2) where the target points should be: a white ring, joined to the prediction by a short line.
        valid: (K,) False for a source point without prediction: a cross on the source alone.
        confidence: (K,) in [0, 1]: less confident lines are thinner.
        title: a line above.
    """
    pair = _Pair(source, target, title)
    everything = np.ones(len(source_points), dtype=bool) if valid is None else valid
    colours = _colours(source_points)
    k = SUPERSAMPLING
    for index in np.flatnonzero(everything).tolist():
        width = 2.0 if confidence is None else 1.0 + 2.0 * float(confidence[index])
        line = [pair.source(source_points[index]), pair.target(predicted_points[index])]
        pair.draw.line(line, fill=colours[index], width=round(width * k / 1.5))
    for index, point in enumerate(source_points):
        at = pair.source(point)
        if not everything[index]:
            _cross(pair.draw, at, 6 * k)
            continue
        _dot(pair.draw, at, 5 * k, colours[index])
        predicted = pair.target(predicted_points[index])
        if true_points is not None:
            true = pair.target(true_points[index])
            pair.draw.line([predicted, true], fill=PAPER, width=2 * k)
            _ring(pair.draw, true, 8 * k, colours[index])
        _dot(pair.draw, predicted, 5 * k, colours[index])
    return pair.finished()


def draw_masks(
    source: RGB, target: RGB, source_outline: Points, target_outline: Points, transferred_outline: Points
) -> RGB:
    """The source's mask, and on the target its true mask (blue) and the transferred one (vermilion)."""
    pair = _Pair(source, target, "source mask | true (blue) and transferred (orange) mask")
    veil = Image.new("RGBA", pair.canvas.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(veil)
    outlines = ((source_outline, pair.source, RIGHT), (target_outline, pair.target, RIGHT))
    for outline, place, colour in (*outlines, (transferred_outline, pair.target, WRONG)):
        if len(outline) >= 3:
            draw.polygon([place(p) for p in outline], fill=(*colour, 90), outline=(*colour, 255), width=4)
    pair.canvas.paste(Image.alpha_composite(pair.canvas.convert("RGBA"), veil).convert("RGB"))
    return pair.finished()


def warp_source_onto_target(
    source: RGB, target_shape: tuple[int, int], source_points: Points, target_points: Points
) -> RGB:
    """The source bent into the target's frame by a smoothed thin-plate spline through matched points.

    Args:
        source: (H, W, 3).
        target_shape: (height, width) of the result.
        source_points, target_points: (M, 2) matches, best first, in original pixels; those far from the affine map
            that the majority follows are left out. Too few points give an affine map, or a plain resize.

    Returns:
        (height, width, 3), white where the source does not reach.
    """
    height, width = target_shape
    backward = _backward_map(source.shape[:2], target_shape, source_points, target_points)
    rows, columns = np.linspace(0, height - 1, 33), np.linspace(0, width - 1, 33)
    coarse = backward(np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)).reshape(33, 33, 2)
    zoom = np.mgrid[0 : 32 : height * 1j, 0 : 32 : width * 1j]
    x, y = (scipy.ndimage.map_coordinates(coarse[..., axis], zoom, order=1) for axis in range(2))
    channels = [
        scipy.ndimage.map_coordinates(source[..., c].astype(np.float32), [y, x], order=1, cval=255) for c in range(3)
    ]
    warped: RGB = np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)
    return warped


def draw_warp(source: RGB, target: RGB, warped: RGB) -> RGB:
    """Source, target, the source warped onto the target, and both blended half and half."""
    blend: RGB = ((target.astype(np.uint16) + warped) // 2).astype(np.uint8)
    names = ("source", "target", "source warped onto target", "half and half")
    return contact_sheet((source, target, warped, blend), names, 4)


def contact_sheet(pictures: Sequence[RGB], captions: Sequence[str], columns: int) -> RGB:
    """Pictures in rows, each with its caption below."""
    tiles = [_fitted(picture, IMAGE_HEIGHT * 3 // 4, 420) for picture in pictures]
    cell_width, cell_height = (max((getattr(t, a) for t in tiles), default=1) for a in ("width", "height"))
    rows = -(-len(tiles) // columns)
    sheet = Image.new(
        "RGB",
        (min(columns, max(1, len(tiles))) * (cell_width + GAP) - GAP, max(1, rows) * (cell_height + STRIP_HEIGHT)),
        PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    for number, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        x, y = (number % columns) * (cell_width + GAP), (number // columns) * (cell_height + STRIP_HEIGHT)
        sheet.paste(tile, (x + (cell_width - tile.width) // 2, y))
        text = _shortened(caption, cell_width)
        draw.text((x + cell_width // 2, y + cell_height + 10), text, fill=INK, font=font, anchor="ma")
    return np.asarray(sheet)


# -- charts ------------------------------------------------------------------------------------------------------


def draw_layer_selection(
    rates: NDArray[np.float64], row_names: Sequence[str], layers: Sequence[int], title: str
) -> Figure:
    """Heat map of layer selection, one row per class, with the mean over the rows above.

    Args:
        rates: (C, L) share of pairs that use the layer, in [0, 1].
    """
    num_rows, num_layers = rates.shape
    figure = Figure(figsize=(max(5.0, 0.34 * num_layers + 2.5), max(3.0, 0.3 * num_rows + 2.2)))
    top, heat = figure.subplots(2, 1, sharex=True, height_ratios=(1, max(1.0, 0.35 * num_rows)))
    places = np.arange(num_layers)
    top.bar(places, rates.mean(axis=0), color=METHOD_COLOURS[0], width=0.8)
    top.set_ylim(0, 1)
    top.set_ylabel("mean")
    top.set_title(title, loc="left", fontsize=11)
    _plain(top)
    image = heat.imshow(rates, aspect="auto", vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
    heat.set_yticks(np.arange(num_rows), list(row_names), fontsize=8)
    heat.set_xticks(places, [str(layer) for layer in layers], fontsize=8)
    heat.set_xlabel("hyperpixel layer (0 = stem)")
    figure.colorbar(image, ax=[top, heat], label="share of pairs that use the layer", fraction=0.04)
    return figure


def draw_pck_bars(table: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """Grouped bars: a group for each metric, a bar for each method, values in percent written on the bars."""
    metrics = list(dict.fromkeys(metric for row in table.values() for metric in row))
    figure = Figure(figsize=(max(6.0, 0.55 * len(metrics) * len(table) + 2.0), 4.0))
    axes = figure.subplots()
    width = 0.8 / max(1, len(table))
    for index, (method, values) in enumerate(table.items()):
        places = np.arange(len(metrics)) + (index - (len(table) - 1) / 2) * width
        heights = [100 * values.get(metric, 0.0) for metric in metrics]
        colour = METHOD_COLOURS[index % len(METHOD_COLOURS)]
        bars = axes.bar(places, heights, width * 0.92, color=colour, label=method)
        axes.bar_label(bars, fmt="%.0f", fontsize=8, padding=1)
    axes.set_xticks(np.arange(len(metrics)), [metric.replace(" ", "\n") for metric in metrics], fontsize=9)
    axes.set_ylim(0, 108)
    axes.set_ylabel("mean over pairs, %")
    axes.set_title(title, loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _plain(axes)
    return figure


def draw_curves(series: Mapping[str, Sequence[tuple[float, float]]], xlabel: str, ylabel: str, title: str) -> Figure:
    """A line with dots for each named series of (x, y)."""
    figure = Figure(figsize=(6.0, 3.6))
    axes = figure.subplots()
    for index, (name, points) in enumerate(series.items()):
        x, y = [p[0] for p in points], [p[1] for p in points]
        axes.plot(x, y, "o-", color=METHOD_COLOURS[index % len(METHOD_COLOURS)], label=name, markersize=4)
    if series and all(float(x).is_integer() for points in series.values() for x, _ in points):
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_title(title, loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=9)
    axes.grid(alpha=0.25)
    _plain(axes)
    return figure


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


# -- details -----------------------------------------------------------------------------------------------------


def _fitted(image: RGB, height: int = IMAGE_HEIGHT, max_width: int = MAX_IMAGE_WIDTH) -> Image.Image:
    scale = min(height / image.shape[0], max_width / image.shape[1])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)


def _shortened(text: str, width: int) -> str:
    most = max(8, width // 8)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _colours(points: Points) -> list[tuple[int, int, int]]:
    """A colour per point by its place from left to right, so that a crossing line stands out."""
    if not len(points):
        return []
    x = points[:, 0] - points[:, 0].min()
    share = x / x.max() if x.max() > 0 else x
    table = matplotlib.colormaps["turbo"](0.08 + 0.84 * share)[:, :3]
    return [(int(r), int(g), int(b)) for r, g, b in np.round(255 * table)]


def _dot(draw: ImageDraw.ImageDraw, at: tuple[float, float], radius: float, colour: tuple[int, int, int]) -> None:
    x, y = at
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline=PAPER, width=SUPERSAMPLING)


def _ring(draw: ImageDraw.ImageDraw, at: tuple[float, float], radius: float, colour: tuple[int, int, int]) -> None:
    x, y = at
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=PAPER, width=3 * SUPERSAMPLING)
    inner = radius - SUPERSAMPLING
    draw.ellipse((x - inner, y - inner, x + inner, y + inner), outline=colour, width=SUPERSAMPLING)


def _cross(draw: ImageDraw.ImageDraw, at: tuple[float, float], radius: float) -> None:
    x, y = at
    for width, colour in ((5 * SUPERSAMPLING, PAPER), (2 * SUPERSAMPLING, WRONG)):
        draw.line((x - radius, y - radius, x + radius, y + radius), fill=colour, width=width)
        draw.line((x - radius, y + radius, x + radius, y - radius), fill=colour, width=width)


class _Affine:
    """Least squares affine map of points."""

    def __init__(self, origin: NDArray[np.float64], image: NDArray[np.float64]) -> None:
        self._matrix = np.linalg.lstsq(np.hstack([origin, np.ones((len(origin), 1))]), image, rcond=None)[0]

    def __call__(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        mapped: NDArray[np.float64] = np.hstack([points, np.ones((len(points), 1))]) @ self._matrix
        return mapped


class _Resize:
    """The map between two image frames that only scales."""

    def __init__(self, origin_shape: Sequence[int], image_shape: Sequence[int]) -> None:
        self._factor = np.array([image_shape[1] / origin_shape[1], image_shape[0] / origin_shape[0]])

    def __call__(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        scaled: NDArray[np.float64] = points * self._factor
        return scaled


def _backward_map(
    source_shape: Sequence[int], target_shape: Sequence[int], source_points: Points, target_points: Points
) -> _Affine | _Resize | scipy.interpolate.RBFInterpolator:
    """The map from target points to source points that the matches suggest."""
    source = source_points[:MAX_POINTS_TO_BEND].astype(np.float64)
    target = target_points[:MAX_POINTS_TO_BEND].astype(np.float64)
    kept = _followers(target, source)
    source, target = source[kept], target[kept]
    distinct = len(np.unique(target, axis=0))
    # Points on one line would make a plane of no sure slope.
    spread = np.linalg.matrix_rank(target - target.mean(axis=0), tol=1.0) if distinct >= MIN_POINTS_TO_FIT else 0
    if spread < 2:
        return _Resize(target_shape, source_shape)
    if distinct < MIN_POINTS_TO_BEND:
        return _Affine(target, source)
    target, first = np.unique(target, axis=0, return_index=True)
    smoothing = 0.5 * len(target)
    return scipy.interpolate.RBFInterpolator(target, source[first], kernel="thin_plate_spline", smoothing=smoothing)


def _followers(origin: NDArray[np.float64], image: NDArray[np.float64]) -> NDArray[np.intp]:
    """Indices of the matches that lie near the affine map of the majority: three rounds of dropping the far ones."""
    kept = np.arange(len(origin))
    for _ in range(3):
        if len(kept) < MIN_POINTS_TO_BEND:
            break
        distance = np.linalg.norm(_Affine(origin[kept], image[kept])(origin[kept]) - image[kept], axis=1)
        kept = kept[distance <= max(4.0, 2.5 * float(np.median(distance)))]
    return kept
