"""A white page with marks and text, drawn at twice its size and reduced at the end so that edges are smooth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dhpf.drawing.style import INK, NUMBER_PIXELS, PALE, PAPER, TEXT_PIXELS, Colour, font, text_colour_on
from dhpf.images import RGB

Place = tuple[float, float]

SUPERSAMPLING = 2


class Page:
    """A page to draw on. Places, radii and widths are in pixels of the finished page; every mark has a white edge."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._canvas = Image.new("RGB", (width * SUPERSAMPLING, height * SUPERSAMPLING), PAPER)
        # In this mode a colour with a fourth value, its opacity, is blended with what it covers.
        self._draw = ImageDraw.Draw(self._canvas, "RGBA")

    def image(self, image: Image.Image, left: int, top: int, size: tuple[int, int]) -> None:
        """Puts an image of any size into the rectangle, with a pale frame so that a white one has an edge, too."""
        scaled = image.resize((size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING), Image.Resampling.LANCZOS)
        self._canvas.paste(scaled, (left * SUPERSAMPLING, top * SUPERSAMPLING))
        frame = (*_scaled((left - 1, top - 1)), *_scaled((left + size[0] + 1, top + size[1] + 1)))
        self._draw.rectangle((frame[0], frame[1], frame[2] - 1, frame[3] - 1), outline=PALE, width=SUPERSAMPLING)

    def text(
        self,
        at: Place,
        text: str,
        *,
        pixels: int = TEXT_PIXELS,
        colour: Colour = INK,
        bold: bool = False,
        anchor: Literal["la", "ma", "lm", "mm"] = "la",
    ) -> None:
        """A line of text; the anchor is one of Pillow's."""
        self._draw.text(_scaled(at), text, fill=colour, font=font(pixels * SUPERSAMPLING, bold=bold), anchor=anchor)

    def line(self, start: Place, end: Place, colour: Colour, width: float, *, dashed: bool = False) -> None:
        """A line with a translucent white edge."""
        for piece_start, piece_end in _dashes(start, end) if dashed else [(start, end)]:
            ends = [_scaled(piece_start), _scaled(piece_end)]
            self._draw.line(ends, fill=(*PAPER, 150), width=_width(width + 1.4))
            self._draw.line(ends, fill=(*colour, 235), width=_width(width))

    def dot(self, at: Place, radius: float, colour: Colour) -> None:
        """A filled disc."""
        self._draw.ellipse(_square(at, radius + 1.5), fill=PAPER)
        self._draw.ellipse(_square(at, radius), fill=colour)

    def numbered(self, at: Place, radius: float, number: int, colour: Colour, *, hollow: bool = False) -> None:
        """A disc with a number in it."""
        self._draw.ellipse(_square(at, radius + 1.5), fill=colour if hollow else PAPER)
        self._draw.ellipse(_square(at, radius), fill=PAPER if hollow else colour)
        ink = colour if hollow else text_colour_on(colour)
        self.text(at, str(number), pixels=NUMBER_PIXELS, colour=ink, bold=True, anchor="mm")

    def diamond(self, at: Place, radius: float, colour: Colour) -> None:
        """A filled square that stands on a corner."""
        for reach, fill in ((radius * 1.3 + 2, PAPER), (radius * 1.3, colour)):
            corners = [(at[0], at[1] - reach), (at[0] + reach, at[1]), (at[0], at[1] + reach), (at[0] - reach, at[1])]
            self._draw.polygon([_scaled(corner) for corner in corners], fill=fill)

    def ring(self, at: Place, radius: float, colour: Colour) -> None:
        """A circle whose inside stays visible."""
        self._draw.ellipse(_square(at, radius + 1.5), outline=PAPER, width=_width(5))
        self._draw.ellipse(_square(at, radius), outline=colour, width=_width(2))

    def hollow_cross(self, at: Place, radius: float, colour: Colour) -> None:
        """A diagonal cross whose strokes are white inside."""
        x, y = at
        for stroke, reach, width in ((PAPER, radius + 2.5, 7.5), (colour, radius + 1.5, 5.5), (PAPER, radius, 2.5)):
            for slope in (1, -1):
                ends = [_scaled((x - reach, y - slope * reach)), _scaled((x + reach, y + slope * reach))]
                self._draw.line(ends, fill=stroke, width=_width(width))

    def inside(self, corners: Sequence[Place]) -> NDArray[np.bool_]:
        """Which pixels of the page, before it is reduced, a polygon covers; none for fewer than 3 corners."""
        area = Image.new("1", self._canvas.size)
        if len(corners) >= 3:
            ImageDraw.Draw(area).polygon([_scaled(corner) for corner in corners], fill=1)
        return np.asarray(area)

    def tint(self, pixels: NDArray[np.bool_], colour: Colour, opacity: float) -> None:
        """Lays a translucent colour over pixels that `inside` gave."""
        strength = Image.fromarray((pixels * round(255 * opacity)).astype(np.uint8))
        self._canvas.paste(Image.new("RGB", self._canvas.size, colour), (0, 0), strength)

    def outline(self, corners: Sequence[Place], colour: Colour, width: float) -> None:
        """A closed line through the corners."""
        if len(corners) >= 3:
            ends = [_scaled(corner) for corner in (*corners, corners[0], corners[1])]
            self._draw.line(ends, fill=(*PAPER, 200), width=_width(width + 2), joint="curve")
            self._draw.line(ends, fill=colour, width=_width(width), joint="curve")

    def square(self, at: Place, radius: float, colour: Colour, opacity: float) -> None:
        """A filled square, tinted like an area."""
        x, y = at
        corners = [
            (x - radius, y - radius),
            (x + radius, y - radius),
            (x + radius, y + radius),
            (x - radius, y + radius),
        ]
        self.tint(self.inside(corners), colour, opacity)

    def finished(self) -> RGB:
        """The page reduced to its size, (height, width, 3) uint8."""
        return np.asarray(self._canvas.resize((self.width, self.height), Image.Resampling.LANCZOS))


def _scaled(at: Place) -> Place:
    return at[0] * SUPERSAMPLING, at[1] * SUPERSAMPLING


def _width(pixels: float) -> int:
    return max(1, round(pixels * SUPERSAMPLING))


def _square(at: Place, radius: float) -> tuple[float, float, float, float]:
    x, y = _scaled(at)
    reach = radius * SUPERSAMPLING
    return x - reach, y - reach, x + reach, y + reach


def _dashes(start: Place, end: Place, length: float = 7.0) -> list[tuple[Place, Place]]:
    """Pieces of a line: drawn and left out in turn, each about `length` long, a drawn one at both ends."""
    num_drawn = max(1, round(math.dist(start, end) / (2 * length)))
    edges = np.linspace(0, 1, 2 * num_drawn)
    places = [(start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])) for share in edges]
    return list(zip(places[::2], places[1::2], strict=True))
