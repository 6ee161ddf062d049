"""Chart of a layer search: the sets that it scored, size by size, and the layers that the best sets use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dhpf.drawing.figures import empty_figure, legend_below, make_plain, new_figure
from dhpf.drawing.style import CATEGORIES, SEQUENCE, SMALL_POINTS, TEXT_POINTS

LAYER_HEIGHT, SIZE_WIDTH, MIN_HEAT_HEIGHT = 0.17, 0.85, 1.8
"""Inches that a layer and a size of sets take, and that the label of the colours needs."""

Layers = tuple[int, ...]


def draw_layer_search(
    levels: Sequence[Mapping[Layers, float]], kept: Sequence[Sequence[Layers]], num_layers: int, ylabel: str, title: str
) -> Figure:
    """Above, the value of every set that was scored, by its size; below, which layers the best sets of a size use.

    Args:
        levels: for each size of sets, from 1, the values in [0, 1] of its sets.
        kept: for each size, the sets that were extended, the best first.
        num_layers: of the backbone.
        ylabel: what the values are.
        title: a line above.

    Raises:
        ValueError: the kept sets do not fit the levels.
    """
    if len(kept) != len(levels) or any(not set(k) <= set(level) for k, level in zip(kept, levels, strict=False)):
        raise ValueError("kept sets that are in no level")
    if not levels:
        return empty_figure(title)
    heat_height = max(MIN_HEAT_HEIGHT, LAYER_HEIGHT * num_layers)
    figure = new_figure(max(6.0, 1.6 + SIZE_WIDTH * len(levels)), 3.4 + heat_height, title)
    top, heat = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, heat_height))
    _draw_values(top, levels, kept, ylabel)
    _draw_layers(heat, kept, num_layers)
    handles, labels = top.get_legend_handles_labels()
    legend_below(figure, labels, handles)
    return figure


def _draw_values(
    axes: Axes, levels: Sequence[Mapping[Layers, float]], kept: Sequence[Sequence[Layers]], ylabel: str
) -> None:
    columns = range(len(levels))
    every = [(column, 100 * value) for column, level in zip(columns, levels, strict=True) for value in level.values()]
    chosen = [(column, 100 * levels[column][layers]) for column in columns for layers in kept[column]]
    best = [100 * levels[column][kept[column][0]] for column in columns]
    for points, label, colour, size in ((every, "scored", "#bdbdbd", 12), (chosen, "extended", CATEGORIES[0], 22)):
        x, y = zip(*points, strict=True)
        axes.scatter(x, y, size, color=colour, label=label, linewidths=0)
    axes.plot(columns, best, color=CATEGORIES[0], lw=1.2)
    highest = int(np.argmax(best))
    axes.scatter([highest], [best[highest]], 90, marker="*", color=CATEGORIES[5], label="best", zorder=3)
    for column in columns:
        weight = "bold" if column == highest else "normal"
        above = (column, best[column]), (0, 6)
        axes.annotate(
            f"{best[column]:.1f}", *above, textcoords="offset points", ha="center", fontsize=SMALL_POINTS, weight=weight
        )
    axes.margins(y=0.12)
    axes.set_ylabel(ylabel, fontsize=TEXT_POINTS)
    make_plain(axes)
    axes.tick_params(axis="x", which="both", length=0)


def _draw_layers(axes: Axes, kept: Sequence[Sequence[Layers]], num_layers: int) -> None:
    rates = np.zeros((num_layers, len(kept)))
    for column, sets in enumerate(kept):
        for layers in sets:
            rates[list(layers), column] += 100 / len(sets)
    image = axes.imshow(rates, aspect="auto", vmin=0, vmax=100, cmap=SEQUENCE, interpolation="nearest")
    marks = [(column, layer) for column, sets in enumerate(kept) for layer in sets[0]]
    x, y = zip(*marks, strict=True)
    axes.scatter(x, y, 80, marker="*", color=CATEGORIES[5], edgecolors="white", linewidths=1)
    axes.set_xticks(range(len(kept)), [str(size) for size in range(1, len(kept) + 1)])
    axes.set_yticks(range(0, num_layers, 1 if num_layers <= 20 else 2))
    axes.set_xticks(np.arange(len(kept) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(num_layers + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="both", length=0, labelsize=SMALL_POINTS)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("layers in a set", fontsize=TEXT_POINTS)
    axes.set_ylabel("hyperpixel layer (0 = stem)", fontsize=TEXT_POINTS)
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label("extended sets that use the layer, %", fontsize=TEXT_POINTS)
    bar.ax.tick_params(labelsize=SMALL_POINTS, length=2)
