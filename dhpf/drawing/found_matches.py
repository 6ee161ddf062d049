"""Pictures of what a matcher found: numbered points on both images, and the source bent onto the target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dhpf.drawing.page import Page, Place
from dhpf.drawing.pair_page import LegendEntry, PairPage, PlacedImage, dots_by_place
from dhpf.drawing.style import MUTED, Colour, colours_by_place
from dhpf.drawing.warp import warp_source_onto_target
from dhpf.images import RGB
from dhpf.records import Correspondences, Points

SMALL_DOT_RADIUS, DOT_RADIUS, MIN_RADIUS, MAX_RADIUS = 2.5, 3.5, 8.5, 13.0
"""Radii in pixels: of the dot at a point without a number and with one; of the disc that holds the number, for a
confidence of 0 and of 1."""

STEM = 9
"""Pixels from a point to the edge of the disc with its number, which is drawn beside the point so as not to hide it."""

EDGE_WIDTH = 2
"""Width in pixels of the white edge around a disc."""

NUM_DRAWN = 30


@dataclass(frozen=True)
class TransferredPoints:
    """Points that a user gave, and where they lie in the target.

    Attributes:
        source_points: (K, 2) in the source image's original pixels.
        target_points: (K, 2) in the target image's; not finite where not valid.
        valid: (K,) False where there is no prediction.
        confidence: (K,) in [0, 1].
    """

    source_points: Points
    target_points: Points
    valid: NDArray[np.bool_]
    confidence: NDArray[np.float32]


def draw_found_matches(
    source: RGB,
    target: RGB,
    found: Correspondences,
    *,
    names: tuple[str, str] = ("source", "target"),
    limit: int = NUM_DRAWN,
    title: str = "",
) -> RGB:
    """Both images with their matches, and the source warped onto the target by them.

    Matches are numbered in the order of their confidence, the highest first. A match too close to a more confident one
    is a dot without a number. A match has the same number and colour on both images; its colour tells its place in the
    source.

    Args:
        source, target: (H, W, 3) uint8.
        found: matches in original pixels, the most confident first.
        names: of the images, such as those of their files.
        limit: at most this many matches are drawn; the warp uses all.
        title: a line above; without it, the names.

    Returns:
        (H, W, 3) uint8.
    """
    drawn = slice(0, limit)
    points = TransferredPoints(
        found.source_points[drawn],
        found.target_points[drawn],
        np.ones(len(found.confidence[drawn]), dtype=bool),
        found.confidence[drawn],
    )
    return _draw(source, target, points, found, names, title, is_thinned=True)


def draw_transferred_points(
    source: RGB,
    target: RGB,
    points: TransferredPoints,
    found: Correspondences,
    *,
    names: tuple[str, str] = ("source", "target"),
    title: str = "",
) -> RGB:
    """Both images with the points that were asked for, numbered from 1 in their order, and the warped source.

    A point without prediction is a cross on the source alone.

    Args:
        source, target: (H, W, 3) uint8.
        points: what was asked for, in the order of the numbers.
        found: the pair's mutual matches, by which the source is warped.
        names, title: as in `draw_found_matches`.

    Returns:
        (H, W, 3) uint8.
    """
    return _draw(source, target, points, found, names, title, is_thinned=False)


def _draw(
    source: RGB,
    target: RGB,
    points: TransferredPoints,
    found: Correspondences,
    names: tuple[str, str],
    title: str,
    *,
    is_thinned: bool,
) -> RGB:
    warped = warp_source_onto_target(source, target.shape[:2], found.source_points, found.target_points)
    blend = np.asarray(Image.blend(Image.fromarray(target), Image.fromarray(warped), 0.5))
    layers = ", ".join(map(str, found.layers)) or "none (the base map answered)"
    pair = PairPage(
        source,
        target,
        title or f"{names[0]} \N{RIGHTWARDS ARROW} {names[1]}",
        _legend(points, is_thinned=is_thinned),
        subtitle=f"layers used: {layers}",
        names=(f"source: {names[0]}", f"target: {names[1]}"),
        third=(blend, "source bent onto the target, half and half"),
    )
    starts = _pins(pair.source, points.source_points, points)
    ends = _pins(pair.target, np.where(points.valid[:, None], points.target_points, 0), points)
    every = range(len(starts))
    numbered = _apart(starts, ends) if is_thinned else list(every)
    colours = colours_by_place(points.source_points)
    for index in every:
        if index not in numbered:
            pair.page.dot(starts[index].point, SMALL_DOT_RADIUS, colours[index])
            pair.page.dot(ends[index].point, SMALL_DOT_RADIUS, colours[index])
    last_first = list(enumerate(numbered, start=1))[::-1]  # the first come last: they lie on top
    for number, index in last_first:
        if points.valid[index]:
            starts[index].draw_number(pair.page, number, colours[index])
            ends[index].draw_number(pair.page, number, colours[index])
        else:
            starts[index].draw_number(pair.page, number, MUTED, hollow=True)
    for _, index in last_first:
        if points.valid[index]:
            pair.page.dot(starts[index].point, DOT_RADIUS, colours[index])
            pair.page.dot(ends[index].point, DOT_RADIUS, colours[index])
        else:
            pair.page.hollow_cross(starts[index].point, DOT_RADIUS, MUTED)
    return pair.page.finished()


@dataclass(frozen=True)
class _Pin:
    """A point on the page, and the disc with its number above it, or below it where the image ends above."""

    point: Place
    middle: Place
    radius: float

    def draw_number(self, page: Page, number: int, colour: Colour, *, hollow: bool = False) -> None:
        page.line(self.point, self.middle, colour, 1.5)
        page.numbered(self.middle, self.radius, number, colour, hollow=hollow)

    def is_clear_of(self, other: _Pin) -> bool:
        """Whether neither number covers the other's number or point."""
        to_point = EDGE_WIDTH + DOT_RADIUS
        return (
            math.dist(self.middle, other.middle) >= self.radius + other.radius + EDGE_WIDTH
            and math.dist(self.middle, other.point) >= self.radius + to_point
            and math.dist(self.point, other.middle) >= other.radius + to_point
        )


def _pins(image: PlacedImage, places: Points, points: TransferredPoints) -> list[_Pin]:
    pins = []
    for (x, y), confidence in zip(image.places(places), points.confidence.tolist(), strict=True):
        radius = MIN_RADIUS + (MAX_RADIUS - MIN_RADIUS) * min(1.0, max(0.0, confidence))
        is_above = y - image.top > STEM + 2 * radius
        pins.append(_Pin((x, y), (x, y - STEM - radius if is_above else y + STEM + radius), radius))
    return pins


def _apart(starts: Sequence[_Pin], ends: Sequence[_Pin]) -> list[int]:
    """Positions of the matches that get a number: all except those that would cover an earlier one of these."""
    kept: list[int] = []
    for index in range(len(starts)):
        if all(starts[index].is_clear_of(starts[k]) and ends[index].is_clear_of(ends[k]) for k in kept):
            kept.append(index)
    return kept


def _legend(points: TransferredPoints, *, is_thinned: bool) -> list[LegendEntry]:
    missing = [number for number, valid in enumerate(points.valid, start=1) if not valid]
    num_found = len(points.valid) - len(missing)
    what = "match" if is_thinned else "point"
    plural = {"match": "matches", "point": "points"}[what]
    text = f"no {plural}" if not num_found else f"{num_found} {plural if num_found > 1 else what}"
    entries = [LegendEntry(f"{text}, coloured by place in the source", dots_by_place)]
    if num_found:
        low, high = (float(f(points.confidence[points.valid])) for f in (np.min, np.max))
        entries.append(LegendEntry(f"larger: more confident (here {low:.2f} to {high:.2f})", _two_sizes))
    if is_thinned:
        entries.append(
            LegendEntry("too close to another for a number", lambda page, at: page.dot(at, DOT_RADIUS, MUTED))
        )
    if missing:
        mark = LegendEntry(f"no prediction: {', '.join(map(str, missing))}", _missing)
        entries.append(mark)
    return entries


def _two_sizes(page: Page, at: Place) -> None:
    page.dot((at[0] - 8, at[1]), MIN_RADIUS / 2, MUTED)
    page.dot((at[0] + 4, at[1]), MAX_RADIUS / 2, MUTED)


def _missing(page: Page, at: Place) -> None:
    page.hollow_cross(at, DOT_RADIUS, MUTED)
