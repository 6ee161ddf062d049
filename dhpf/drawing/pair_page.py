"""A page with a title, source and target side by side, and a legend below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dhpf.drawing.page import Page, Place
from dhpf.drawing.style import MUTED, TEXT_PIXELS, TITLE_PIXELS, colours_by_place, font, wrapped
from dhpf.images import RGB
from dhpf.records import Points

IMAGE_HEIGHT, MAX_IMAGE_WIDTH, MIN_IMAGE_SIDE = 400, 640, 40
MIN_CONTENT_WIDTH, MIN_CAPTION_WIDTH = 560, 120
MARGIN, GAP = 20, 20
TITLE_LINE, SUBTITLE_LINE, CAPTION_LINE, LEGEND_LINE = 24, 20, 22, 26
LEGEND_MARK_WIDTH, LEGEND_GAP = 26, 24
EDGE = 6
"""A point outside its image is drawn at most this many pixels outside the edge, so never on the other image."""


@dataclass(frozen=True)
class LegendEntry:
    """A mark and what it means.

    Attributes:
        mark: draws the mark in the middle of its place on the page.
    """

    text: str
    mark: Callable[[Page, Place], None]


def dots_by_place(page: Page, at: Place) -> None:
    """Draws the legend's mark for points that are coloured by their place in the source."""
    colours = colours_by_place(np.array([(0, 0), (1, 0), (2, 0)], dtype=np.float32))
    for step, colour in zip((-7, 0, 7), colours, strict=True):
        page.dot((at[0] + step, at[1]), 3.5, colour)


@dataclass(frozen=True)
class PlacedImage:
    """The rectangle that an image takes on the page, in pixels of the page."""

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
        """The rectangle's corners, clockwise from the upper left."""
        right, bottom = self.left + self.width, self.top + self.height
        return [(self.left, self.top), (right, self.top), (right, bottom), (self.left, bottom)]


def shown_size(image: RGB, height: int, max_width: int) -> tuple[int, int]:
    """(width, height) at which an image is shown: `height`, or less where it would be wider than `max_width`."""
    scale = min(height / image.shape[0], max_width / image.shape[1])
    width, height = (max(MIN_IMAGE_SIDE, round(side * scale)) for side in (image.shape[1], image.shape[0]))
    return width, height


class PairPage:
    """Both images on a page, ready to be drawn upon.

    Args:
        source, target: (H, W, 3) uint8.
        title: a bold line above.
        legend: marks and what they mean, below.
        subtitle: a grey line below the title.
        names: what stands above the images.
        third: an image to show beside them, and its name.

    Attributes:
        page: to draw upon.
        source, target: the images' rectangles, which turn points into places.
    """

    def __init__(
        self,
        source: RGB,
        target: RGB,
        title: str,
        legend: Sequence[LegendEntry],
        *,
        subtitle: str = "",
        names: tuple[str, str] = ("source", "target"),
        third: tuple[RGB, str] | None = None,
    ) -> None:
        images = [(source, names[0]), (target, names[1]), *([third] if third else [])]
        sizes = [shown_size(image, IMAGE_HEIGHT, MAX_IMAGE_WIDTH) for image, _ in images]
        images_width = sum(width for width, _ in sizes) + GAP * (len(sizes) - 1)
        images_height = max(height for _, height in sizes)
        content = max(images_width, MIN_CONTENT_WIDTH)
        title_lines = wrapped(title, font(TITLE_PIXELS, bold=True), content, max_lines=2)
        subtitle_lines = wrapped(subtitle, font(TEXT_PIXELS), content, max_lines=2)
        legend_rows = _legend_rows(legend, content)
        subtitle_top = MARGIN + TITLE_LINE * len(title_lines)
        images_top = subtitle_top + SUBTITLE_LINE * len(subtitle_lines) + CAPTION_LINE
        legend_top = images_top + images_height + (EDGE + 8 if legend_rows else 0)
        self.page = Page(content + 2 * MARGIN, legend_top + LEGEND_LINE * len(legend_rows) + MARGIN)
        for number, line in enumerate(title_lines):
            self.page.text((MARGIN, MARGIN + number * TITLE_LINE), line, pixels=TITLE_PIXELS, bold=True)
        for number, line in enumerate(subtitle_lines):
            self.page.text((MARGIN, subtitle_top + number * SUBTITLE_LINE), line, colour=MUTED)
        left = MARGIN + (content - images_width) // 2
        placed = []
        for (image, name), size in zip(images, sizes, strict=True):
            placed.append(self._place(image, name, left, images_top, images_height, size))
            left += size[0] + GAP
        self.source, self.target = placed[:2]
        for number, row in enumerate(legend_rows):
            for offset, entry in row:
                middle = legend_top + (number + 0.5) * LEGEND_LINE
                entry.mark(self.page, (MARGIN + offset + LEGEND_MARK_WIDTH / 2 - 4, middle))
                self.page.text((MARGIN + offset + LEGEND_MARK_WIDTH, middle), entry.text, anchor="lm")

    def _place(self, image: RGB, name: str, left: int, top: int, row_height: int, size: tuple[int, int]) -> PlacedImage:
        width, height = size
        top += (row_height - height) // 2
        self.page.image(Image.fromarray(image), left, top, size)
        for line in wrapped(name, font(TEXT_PIXELS), max(width, MIN_CAPTION_WIDTH), max_lines=1):
            self.page.text((left, top - CAPTION_LINE + 2), line, colour=MUTED)
        return PlacedImage(left, top, width, height, (width / image.shape[1], height / image.shape[0]))


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
