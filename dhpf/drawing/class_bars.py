"""Methods compared class by class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dhpf.drawing.figures import bar_look, empty_figure, legend_below, make_plain, new_figure, shortened
from dhpf.drawing.style import SMALL_POINTS, TEXT_POINTS

ROW_BARS = 66
"""A row of a chart has room for about this many bars, the spaces between groups included."""

BAR_WIDTH, ROW_HEIGHT = 0.19, 2.1
"""In inches."""

Table = Mapping[str, Mapping[str, float]]


def draw_class_bars(table: Table, ylabel: str, title: str) -> Figure:
    """Rows of grouped bars: a group for each class, a bar for each method, the percentage upright on it.

    Args:
        table: for each method, its classes' values in [0, 1]; a method may lack a class.
        ylabel: what the values are.
        title: a line above.
    """
    classes = list(dict.fromkeys(name for values in table.values() for name in values))
    if not classes:
        return empty_figure(title)
    group = len(table) + 1
    num_rows = math.ceil(len(classes) * group / ROW_BARS)
    per_row = math.ceil(len(classes) / num_rows)
    figure = new_figure(max(6.0, 1.0 + BAR_WIDTH * per_row * group), 0.5 + ROW_HEIGHT * num_rows, title)
    for row, axes in enumerate(figure.subplots(num_rows, 1, squeeze=False)[:, 0]):
        _draw_row(axes, table, classes[row * per_row : (row + 1) * per_row], per_row)
        axes.set_ylabel(ylabel, fontsize=TEXT_POINTS)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    legend_below(figure, len(labels), handles)
    return figure


def _draw_row(axes: Axes, table: Table, classes: Sequence[str], room: int) -> None:
    group = len(table) + 1
    for index, (method, values) in enumerate(table.items()):
        colour, hatch = bar_look(index)
        shown = [(place * group + index, 100 * values[name]) for place, name in enumerate(classes) if name in values]
        places, heights = [place for place, _ in shown], [height for _, height in shown]
        axes.bar(places, heights, 0.9, label=shortened(method), color=colour, hatch=hatch, edgecolor="white", lw=0)
        for place, height in shown:
            axes.text(place, height + 2, f"{height:.0f}", ha="center", va="bottom", fontsize=SMALL_POINTS, rotation=90)
    axes.set_xticks(np.arange(len(classes)) * group + (len(table) - 1) / 2, [shortened(name) for name in classes])
    axes.set_xlim(-1, room * group - 1)
    axes.set_ylim(0, 122)
    axes.set_yticks(range(0, 101, 25))
    make_plain(axes)
    axes.tick_params(axis="x", length=0)
