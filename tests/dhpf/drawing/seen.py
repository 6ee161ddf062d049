"""Plain images for the drawing tests, and functions that read pixels, places and words from finished pictures."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from dhpf.drawing.style import Colour
from dhpf.images import RGB
from dhpf.records import Points

DARK, LIGHT = 70, 180


def points(*rows: tuple[float, float]) -> Points:
    return np.array(rows, dtype=np.float32).reshape(-1, 2)


def plain(height: int, width: int, grey: int) -> RGB:
    return np.full((height, width, 3), grey, dtype=np.uint8)


SOURCE, TARGET = plain(100, 100, DARK), plain(100, 150, LIGHT)


def is_colour(picture: RGB, colour: Colour, tolerance: int = 12) -> np.ndarray:
    return (np.abs(picture.astype(int) - colour) <= tolerance).all(axis=2)


def rectangle(picture: RGB, grey: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in the picture of the plain image that has this grey value."""
    found = is_colour(picture, (grey, grey, grey), 4)
    # Letters are grey at their edges, too, but nowhere for so long.
    rows, columns = np.flatnonzero(found.sum(axis=1) > 60), np.flatnonzero(found.sum(axis=0) > 25)
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def place(picture: RGB, grey: int, size: tuple[int, int], point: tuple[float, float]) -> tuple[int, int]:
    """(row, column) in the picture of a point of the plain image that has this grey value and size (width, height)."""
    left, top, right, bottom = rectangle(picture, grey)
    return (
        round(top + point[1] * (bottom - top) / size[1] - 0.5),
        round(left + point[0] * (right - left) / size[0] - 0.5),
    )


def inside(picture: RGB, grey: int) -> RGB:
    left, top, right, bottom = rectangle(picture, grey)
    return picture[top:bottom, left:right]


def assert_nothing_is_cut_off(figure: Figure) -> None:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    needed = figure.get_tightbbox(canvas.get_renderer())
    width, height = figure.get_size_inches()
    title = figure.texts[0].get_window_extent()
    drawn_boxes = [axes.get_tightbbox(canvas.get_renderer()) for axes in figure.axes]
    assert all(box is not None and box.y1 <= title.y0 for box in drawn_boxes)
    assert needed.x0 >= 0.1 and needed.y0 >= 0.06 and needed.x1 <= width - 0.1 and needed.y1 <= height - 0.1


def all_text(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]
