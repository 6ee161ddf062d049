"""The one palette and the one scale of font sizes of all pictures."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from PIL import ImageFont

from dhpf.records import Points

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont

PAPER: Colour = (255, 255, 255)
INK: Colour = (38, 38, 38)
MUTED: Colour = (110, 110, 110)
PALE: Colour = (215, 215, 215)
RIGHT: Colour = (0, 114, 178)
WRONG: Colour = (213, 94, 0)
AGREEMENT: Colour = (0, 158, 115)
"""Blue, vermilion and bluish green of Okabe and Ito's palette, which colour-blind people can tell apart."""

CATEGORIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#7F7F7F")
"""The same palette for methods and series, in the order of use."""

SEQUENCE = "viridis"
"""Colour map of amounts: perceptually uniform."""

PLACES = "plasma"
"""Colour map of places; its lightness alone tells the order. Its dark and its palest ends are not used."""

TITLE_PIXELS, TEXT_PIXELS, NUMBER_PIXELS = 17, 13, 11
TITLE_POINTS, TEXT_POINTS, SMALL_POINTS = 12, 9, 8

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


def font(pixels: int, *, bold: bool = False) -> Font:
    """The charts' font, which comes with matplotlib, for use on images."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), pixels)


def text_colour_on(colour: Colour) -> Colour:
    """Black or white, whichever is read more easily on this colour."""
    red, green, blue = colour
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else PAPER


def wrapped(text: str, face: Font, width: float, max_lines: int) -> list[str]:
    """The text in lines of at most `width` pixels; what does not fit into `max_lines` is cut off with an ellipsis."""
    lines: list[str] = []
    rest = " ".join(text.split())
    while rest and len(lines) < max_lines:
        end = _break_after(rest, face, width)
        lines.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    if rest and lines:
        last = lines[-1]
        while last and face.getlength(last + ELLIPSIS) > width:
            last = last[:-1]
        lines[-1] = last.rstrip() + ELLIPSIS
    return lines


def _break_after(text: str, face: Font, width: float) -> int:
    """How many characters go onto a line: whole words if the first fits, at least one character."""
    end = len(text)
    while end > 1 and face.getlength(text[:end]) > width:
        space = text.rfind(" ", 0, end)
        end = space if space > 0 else end - 1
    return end


def colours_by_place(points: Points) -> list[Colour]:
    """A colour per point, evenly spread along the direction in which the (K, 2) points extend most.

    Lines that keep the points' order look like a rainbow; one that breaks it stands out.
    """
    if len(points) == 0:
        return []
    main, other = (0, 1) if np.ptp(points[:, 0]) >= np.ptp(points[:, 1]) else (1, 0)
    rank = np.argsort(np.lexsort((points[:, other], points[:, main])))
    share = rank / max(1, len(points) - 1)
    table = matplotlib.colormaps[PLACES](0.05 + 0.8 * share)[:, :3]
    return [(int(r), int(g), int(b)) for r, g, b in np.round(255 * table)]
