"""A page with a title, source and target side by side, and a legend below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dhpf.drawing.page import Page, Place
from dhpf.drawing.style import MUTED, TEXT_PIXELS, TITLE_PIXELS, font, wrapped
from dhpf.images import RGB
from dhpf.records import Points

IMAGE_HEIGHT, MAX_IMAGE_WIDTH, MIN_IMAGE_SIDE = 400, 640, 40
MIN_CONTENT_WIDTH = 560
MARGIN, GAP = 20, 20
TITLE_LINE, CAPTION_LINE, LEGEND_LINE = 24, 22, 26
LEGEND_MARK_WIDTH, LEGEND_GAP = 26, 24
EDGE = 6
"""A point outside its image is drawn this many pixels outside the edge, never on the other image."""


@dataclass(frozen=True)
class LegendEntry:
    """A mark and what it means.

    Attributes:
        mark: draws the mark in the middle of its place on the page.
    """

    text: str
    mark: Callable[[Page, Place], None]


@dataclass(frozen=True)
class _Placed:
    """An image's rectangle on the page."""

    left: int
    top: int
    width: int
    height: int
    factor: tuple[float, float]

    def places(self, points: Points) -> list[Place]:
        """Where (K, 2) points in the image's original pixels come to lie on the page."""
        moved = points * np.array(self.factor) + (self.left, self.top)
        low = (self.left - EDGE, self.top - EDGE)
        high = (self.left + self.width + EDGE, self.top + self.height + EDGE)
        return [(float(x), float(y)) for x, y in np.clip(moved, low, high)]

    @property
    def corners(self) -> list[Place]:
        """Of the rectangle, in order."""
        right, bottom = self.left + self.width, self.top + self.height
        return [(self.left, self.top), (right, self.top), (right, bottom), (self.left, bottom)]


def shown_size(image: RGB, height: int, max_width: int) -> tuple[int, int]:
    """(width, height) at which an image is shown: the height asked for, less if it is very wide, never a mere line."""
    scale = min(height / image.shape[0], max_width / image.shape[1])
    width, height = (max(MIN_IMAGE_SIDE, round(side * scale)) for side in (image.shape[1], image.shape[0]))
    return width, height


class PairPage:
    """Both images on a page, ready to be drawn upon.

    Attributes:
        page: to draw upon.
        source, target: the images' rectangles, which turn points into places.
    """

    def __init__(self, source: RGB, target: RGB, title: str, legend: Sequence[LegendEntry]) -> None:
        sizes = [shown_size(image, IMAGE_HEIGHT, MAX_IMAGE_WIDTH) for image in (source, target)]
        images_width, images_height = sizes[0][0] + GAP + sizes[1][0], max(sizes[0][1], sizes[1][1])
        content = max(images_width, MIN_CONTENT_WIDTH)
        title_lines = wrapped(title, font(TITLE_PIXELS, bold=True), content, max_lines=2)
        legend_rows = _legend_rows(legend, content)
        captions_top = MARGIN + TITLE_LINE * len(title_lines)
        images_top = captions_top + CAPTION_LINE
        legend_top = images_top + images_height + (EDGE + 8 if legend_rows else 0)
        self.page = Page(content + 2 * MARGIN, legend_top + LEGEND_LINE * len(legend_rows) + MARGIN)
        for number, line in enumerate(title_lines):
            self.page.text((MARGIN, MARGIN + number * TITLE_LINE), line, pixels=TITLE_PIXELS, bold=True)
        left = MARGIN + (content - images_width) // 2
        lefts = (left, left + sizes[0][0] + GAP)
        self.source, self.target = (
            self._place(image, name, x, images_top, images_height, size)
            for image, name, x, size in zip((source, target), ("source", "target"), lefts, sizes, strict=True)
        )
        for number, row in enumerate(legend_rows):
            for offset, entry in row:
                middle = legend_top + (number + 0.5) * LEGEND_LINE
                entry.mark(self.page, (MARGIN + offset + LEGEND_MARK_WIDTH / 2 - 4, middle))
                self.page.text((MARGIN + offset + LEGEND_MARK_WIDTH, middle), entry.text, anchor="lm")

    def _place(self, image: RGB, name: str, left: int, top: int, row_height: int, size: tuple[int, int]) -> _Placed:
        width, height = size
        top += (row_height - height) // 2
        self.page.image(Image.fromarray(image), left, top, size)
        self.page.text((left, top - CAPTION_LINE + 2), name, colour=MUTED)
        return _Placed(left, top, width, height, (width / image.shape[1], height / image.shape[0]))


def _legend_rows(legend: Sequence[LegendEntry], width: int) -> list[list[tuple[float, LegendEntry]]]:
    """The entries in rows no wider than the page, each with its distance from the left."""
    face = font(TEXT_PIXELS)
    rows: list[list[tuple[float, LegendEntry]]] = []
    used = float(width)
    for entry in legend:
        needed = LEGEND_MARK_WIDTH + face.getlength(entry.text)
        if used + needed > width:
            rows.append([])
            used = 0.0
        rows[-1].append((used, entry))
        used += needed + LEGEND_GAP
    return rows
