"""Charts of layer selections, scores and differences."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dhpf.drawing.figures import bar_look, empty_figure, legend_below, make_plain, new_figure, shortened
from dhpf.drawing.style import CATEGORIES, SEQUENCE, SMALL_POINTS, TEXT_POINTS
from dhpf.drawing.words import in_words

ROW_HEIGHT, DENSE_ROW_HEIGHT, MIN_HEAT_HEIGHT, MAX_HEAT_HEIGHT = 0.24, 0.15, 0.7, 16.0
"""In inches; rows are dense when there are more than MAX_WIDE_ROWS."""

MAX_WIDE_ROWS = 40
MAX_LAYER_LABELS = 40
MIN_BARS_ROOM = 10
"""A chart with fewer bars is as wide as one with this many, so that its bars do not become too wide."""


def draw_layer_selection(
    rates: NDArray[np.float64], row_names: Sequence[str], layers: Sequence[int], title: str
) -> Figure:
    """Heat map of layer selection, a row per class and a column per layer, and above it the mean over the rows.

    Args:
        rates: (C, L) share of a class's pairs that use the layer, in [0, 1]; drawn in percent, 100 is the brightest.
        row_names: C names of the rows, such as those of classes.
        layers: L layer numbers.
        title: a line above.

    Raises:
        ValueError: the names do not fit the rates.
    """
    if rates.shape != (len(row_names), len(layers)):
        raise ValueError(f"rates of shape {rates.shape} for {len(row_names)} rows and {len(layers)} layers")
    if rates.size == 0:
        return empty_figure(title)
    num_rows, num_layers = rates.shape
    row_height = ROW_HEIGHT if num_rows <= MAX_WIDE_ROWS else DENSE_ROW_HEIGHT
    heat_height = min(MAX_HEAT_HEIGHT, max(MIN_HEAT_HEIGHT, row_height * num_rows))
    figure = new_figure(max(6.0, min(14.0, 0.27 * num_layers + 2.6)), heat_height + 2.1, title)
    top, heat = figure.subplots(2, 1, sharex=True, height_ratios=(1, heat_height))
    top.bar(np.arange(num_layers), 100 * rates.mean(axis=0), color=CATEGORIES[0], width=0.85)
    top.set_ylim(0, 100)
    top.set_yticks([0, 50, 100])
    top.set_ylabel("mean, %", fontsize=TEXT_POINTS)
    make_plain(top)
    image = heat.imshow(100 * rates, aspect="auto", vmin=0, vmax=100, cmap=SEQUENCE, interpolation="nearest")
    _label_cells(heat, row_names, layers, num_labels=int(heat_height / DENSE_ROW_HEIGHT))
    top.tick_params(axis="x", which="both", length=0)
    bar = figure.colorbar(image, ax=[top, heat], fraction=0.05, aspect=(heat_height + 1.2) / 0.2, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label("pairs that use the layer, %", fontsize=TEXT_POINTS)
    bar.ax.tick_params(labelsize=SMALL_POINTS, length=2)
    return figure


def draw_pck_bars(table: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """Grouped bars: a group for each metric, a bar for each method, the percentage on it and the best one's in bold.

    Args:
        table: for each method, its metrics' values in [0, 1]; a method may lack a metric.
        title: a line above.
    """
    metrics = list(dict.fromkeys(metric for row in table.values() for metric in row))
    if not metrics:
        return empty_figure(title)
    # Lengths along the axis are in bars; each group is followed by the space of one.
    group = len(table) + 1
    room = max(MIN_BARS_ROOM, group * len(metrics) + 1)
    figure = new_figure(max(6.0, min(16.0, 0.42 * room + 1.0)), 4.0, title)
    axes = figure.subplots()
    best = {metric: max(row[metric] for row in table.values() if metric in row) for metric in metrics}
    for index, (method, values) in enumerate(table.items()):
        shown = [(place * group + index, metric) for place, metric in enumerate(metrics) if metric in values]
        colour, hatch = bar_look(index)
        heights = [100 * values[metric] for _, metric in shown]
        places = [place for place, _ in shown]
        axes.bar(places, heights, 0.9, label=shortened(method), color=colour, hatch=hatch, edgecolor="white", lw=0)
        for height, (place, metric) in zip(heights, shown, strict=True):
            weight = "bold" if len(table) > 1 and values[metric] == best[metric] else "normal"
            axes.text(place, height + 1, f"{height:.1f}", ha="center", fontsize=SMALL_POINTS, weight=weight)
    middles = np.arange(len(metrics)) * group + (len(table) - 1) / 2
    names = [textwrap.fill(in_words(metric), 16, break_on_hyphens=False) for metric in metrics]
    axes.set_xticks(middles, names)
    axes.set_xlim(middles.mean() - room / 2, middles.mean() + room / 2)
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("mean over pairs, %", fontsize=TEXT_POINTS)
    make_plain(axes)
    axes.tick_params(axis="x", length=0)
    legend_below(figure, [shortened(method) for method in table])
    return figure


def draw_differences(intervals: Mapping[str, tuple[float, float, float]], title: str) -> Figure:
    """Mean differences with their confidence intervals, one row each, on one axis; a vertical line marks 0.

    Args:
        intervals: (low, mean, high) of each row by its name, as shares of 1; drawn in percentage points.
        title: a line above.
    """
    if not intervals:
        return empty_figure(title)
    figure = new_figure(6.4, 0.9 + 0.45 * len(intervals), title)
    axes = figure.subplots()
    axes.axvline(0, color="#262626", linewidth=1)
    for row, (low, mean, high) in enumerate(intervals.values()):
        colour = CATEGORIES[5] if high < 0 else CATEGORIES[0]
        axes.plot([100 * low, 100 * high], [row, row], color=colour, linewidth=3, solid_capstyle="round")
        axes.plot([100 * mean], [row], "o", color=colour, markersize=8)
        text = f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        axes.annotate(text, (100 * mean, row), (0, 8), textcoords="offset points", ha="center", fontsize=SMALL_POINTS)
    axes.set_yticks(range(len(intervals)), [shortened(name) for name in intervals])
    axes.set_ylim(len(intervals) - 0.4, -0.7)
    reach = 110 * max(0.01, *(abs(end) for low, _, high in intervals.values() for end in (low, high)))
    axes.set_xlim(-reach, reach)
    axes.set_xlabel("difference, percentage points", fontsize=TEXT_POINTS)
    make_plain(axes)
    axes.grid(axis="x", alpha=0.3)
    return figure


def _label_cells(heat: Axes, row_names: Sequence[str], layers: Sequence[int], num_labels: int) -> None:
    """Names of rows and columns, as many as there is room for, and thin white lines between the cells."""
    num_rows, num_layers = len(row_names), len(layers)
    if num_rows <= MAX_WIDE_ROWS:
        heat.set_yticks(np.arange(num_rows + 1) - 0.5, minor=True)
        heat.set_xticks(np.arange(num_layers + 1) - 0.5, minor=True)
        heat.grid(which="minor", color="white", linewidth=0.8)
    row_step, layer_step = math.ceil(num_rows / max(1, num_labels)), math.ceil(num_layers / MAX_LAYER_LABELS)
    heat.set_yticks(np.arange(num_rows)[::row_step], [shortened(in_words(name)) for name in row_names[::row_step]])
    heat.set_xticks(np.arange(num_layers)[::layer_step], [str(layer) for layer in layers[::layer_step]])
    heat.tick_params(which="both", length=0, labelsize=SMALL_POINTS)
    heat.spines[:].set_visible(False)
    heat.set_xlabel("hyperpixel layer (0 = stem)", fontsize=TEXT_POINTS)
