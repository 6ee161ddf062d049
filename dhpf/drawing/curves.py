"""Line charts of a value over time, such as a loss over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dhpf.drawing.figures import empty_figure, legend_below, make_plain, new_figure, shortened
from dhpf.drawing.style import CATEGORIES, TEXT_POINTS

WIDTH, HEIGHT = 6.4, 3.8
"""In inches."""

MAX_MARKED_POINTS = 30
LINE_STYLES = ("-", "--", ":", "-.")
LEVEL_STYLES = ((0, (6, 2)), (0, (1, 2)), (0, (6, 2, 1, 2)))
LEVEL_COLOUR = "#6e6e6e"

Series = Mapping[str, Sequence[tuple[float, float]]]


def draw_curves(
    series: Series,
    xlabel: str,
    ylabel: str,
    title: str,
    *,
    levels: Mapping[str, float] | None = None,
    least_range: float = 0.0,
) -> Figure:
    """A line for each named series of (x, y) points, such as a loss over the epochs.

    Args:
        series: points in the order of x; dots mark them while they are few.
        xlabel, ylabel: what the axes show, with units.
        title: a line above.
        levels: named values to compare with, a grey horizontal line each.
        least_range: the y axis covers at least this much, so that small changes look small.
    """
    drawn = {name: points for name, points in series.items() if points}
    if not drawn:
        return empty_figure(title)
    figure = new_figure(WIDTH, HEIGHT, title)
    axes = figure.subplots()
    plot_curves(axes, drawn)
    for index, (name, value) in enumerate((levels or {}).items()):
        style = LEVEL_STYLES[index % len(LEVEL_STYLES)]
        axes.axhline(value, color=LEVEL_COLOUR, linestyle=style, linewidth=1.5, label=name)
    heights = [y for points in drawn.values() for _, y in points] + list((levels or {}).values())
    _set_height(axes, min(heights), max(heights), least_range)
    axes.set_xlabel(xlabel, fontsize=TEXT_POINTS)
    axes.set_ylabel(ylabel, fontsize=TEXT_POINTS)
    legend_below(figure, [*map(shortened, drawn), *(levels or {})])
    return figure


def plot_curves(axes: Axes, series: Series) -> None:
    """Draws the lines without title, legend and axis labels; colours and styles follow the order of the series."""
    for index, (name, points) in enumerate(series.items()):
        x, y = zip(*points, strict=True)
        marker = "o" if len(points) <= MAX_MARKED_POINTS else ""
        colour, style = CATEGORIES[index % len(CATEGORIES)], LINE_STYLES[index % len(LINE_STYLES)]
        axes.plot(x, y, style, marker=marker, color=colour, label=shortened(name), markersize=4.5, linewidth=1.8)
    if all(float(x).is_integer() for points in series.values() for x, _ in points):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    make_plain(axes)


def _set_height(axes: Axes, low: float, high: float, least_range: float) -> None:
    """Sets the range of the y axis: some room above and below the values, and from 0 where they come near it."""
    if high - low < least_range:
        middle = (low + high) / 2
        axes.set_ylim(middle - least_range / 2, middle + least_range / 2)
        return
    margin = 0.12 * (high - low)
    if margin:
        axes.set_ylim(0 if 0 <= low < 0.35 * high else low - margin, high + margin)
