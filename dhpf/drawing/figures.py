"""Parts of all charts: figures with a title, plain axes, legends, and colours and hatches of series."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Literal

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from dhpf.drawing.style import CATEGORIES, TEXT_POINTS, TITLE_POINTS

PADDING = 0.12
"""White space around a chart, in inches."""

TITLE_LETTERS_PER_INCH, TITLE_LINE_HEIGHT = 8.5, 0.24
LABEL_LETTERS = 28
"""Longer names of classes and methods are cut off."""

LABEL_LETTERS_PER_INCH, LEGEND_MARK, MAX_LEGEND_COLUMNS = 12.0, 0.65, 4
"""Of a legend: characters of its text per inch; inches that a mark takes with the space around it; columns."""

HATCHES = ("", "///", "...", "xxx")


def new_figure(width: float, height: float, title: str) -> Figure:
    """A figure of this size in inches, and room for its title at the upper left."""
    lines = textwrap.wrap(title, int(width * TITLE_LETTERS_PER_INCH), max_lines=3, placeholder=" ...")
    title_height = TITLE_LINE_HEIGHT * len(lines)
    height += title_height
    figure = Figure(figsize=(width, height), layout="constrained")
    left, bottom = PADDING / width, PADDING / height
    inside = (left, bottom, 1 - 2 * left, 1 - 2 * bottom - title_height / height)
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(w_pad=0.05, h_pad=0.05, wspace=0, hspace=0, rect=inside)  # type: ignore[call-arg]
    text = figure.text(left, 1 - bottom, "\n".join(lines), va="top", linespacing=1.25)
    text.set_fontsize(TITLE_POINTS)
    text.set_fontweight("bold")
    return figure


def take_names_literally(figure: Figure) -> None:
    """Shows a dollar sign in a name as it is; Matplotlib would set what is between two as a formula, or fail to.

    The powers of ten on a logarithmic axis are formulas, and stay.
    """
    axes = (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) if axis.get_scale() == "log")
    powers = {label for axis in axes for label in axis.get_ticklabels(which="both")}
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text not in powers:
            text.set_parse_math(False)


def bar_look(index: int) -> tuple[str, str]:
    """Colour and hatch of the bars of method number `index`; hatches begin when the colours are used up."""
    again, colour = divmod(index, len(CATEGORIES))
    return CATEGORIES[colour], HATCHES[again % len(HATCHES)]


def make_plain(axes: Axes, *, grid: Literal["x", "y"] = "y") -> None:
    """Gives axes a pale grid behind the data, and removes the frame above and to the right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=TEXT_POINTS)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, alpha=0.3)


def legend_below(figure: Figure, labels: Sequence[str], handles: Sequence[Artist] | None = None) -> None:
    """Adds a legend below all axes: of all labelled artists, or of `handles` alone where axes repeat their labels."""
    entry = LEGEND_MARK + max(map(len, labels), default=0) / LABEL_LETTERS_PER_INCH
    columns = max(1, min(MAX_LEGEND_COLUMNS, len(labels), int(figure.get_figwidth() / entry)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=TEXT_POINTS)


def shortened(name: str) -> str:
    """The name of a class or method, cut to LABEL_LETTERS characters."""
    return name if len(name) <= LABEL_LETTERS else f"{name[: LABEL_LETTERS - 3]}..."


def empty_figure(title: str) -> Figure:
    """A figure that says that there is nothing to show."""
    figure = new_figure(6.0, 0.7, title)
    figure.text(PADDING / 6.0, 0.2, "nothing to show", fontsize=TEXT_POINTS, color="#6e6e6e")
    return figure
