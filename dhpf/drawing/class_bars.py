"""Chart that compares methods class by class."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dhpf.drawing.figures import bar_look, empty_figure, make_plain, new_figure, shortened
from dhpf.drawing.style import SMALL_POINTS, TEXT_POINTS
from dhpf.drawing.words import in_words

ROW_HEIGHT, DENSE_ROW_HEIGHT, MANY_ROWS = 0.25, 0.165, 30
NAMES_WIDTH, METHOD_WIDTH, MIN_WIDTH = 2.0, 1.55, 5.0
"""In inches; rows are dense where there are many."""

METHOD_LETTERS = 18
"""At most this many characters of a method's name stand in one line above its bars."""

WHOLE = "all pairs"

Table = Mapping[str, Mapping[str, float]]


def draw_class_bars(table: Table, whole: Mapping[str, float], title: str) -> Figure:
    """A row for each class and a column of bars for each method, the percentage beside each bar, a row's best in bold.

    Classes are sorted by the first method's values, the highest first; those that it lacks come last.

    Args:
        table: for each method, its classes' values in [0, 1]; a method may lack a class.
        whole: for each method, its value over all pairs, which is the first row; none for no such row.
        title: a line above that says what the values are.
    """
    classes = list(dict.fromkeys(name for values in table.values() for name in values))
    if not classes:
        return empty_figure(title)
    leader = next(iter(table.values()))
    classes.sort(key=lambda name: (-leader.get(name, -math.inf), name))
    rows = ([WHOLE] if whole else []) + classes
    merged = {m: ({WHOLE: whole[m]} if m in whole else {}) | dict(values) for m, values in table.items()}
    best = {row: max(_shown(values[row]) for values in merged.values() if row in values) for row in rows}
    row_height = ROW_HEIGHT if len(rows) <= MANY_ROWS else DENSE_ROW_HEIGHT
    width = max(MIN_WIDTH, NAMES_WIDTH + METHOD_WIDTH * len(table))
    figure = new_figure(width, 0.9 + row_height * len(rows), title)
    panels = figure.subplots(1, len(table), sharex=True, sharey=True, squeeze=False)[0]
    for index, (axes, (method, values)) in enumerate(zip(panels, merged.items(), strict=True)):
        _draw_method(axes, index, values, rows, best if len(table) > 1 else {})
        name = textwrap.fill(shortened(method), METHOD_LETTERS, break_on_hyphens=False)
        axes.set_title(name, fontsize=TEXT_POINTS, loc="left")
    panels[0].set_yticks(range(len(rows)), [shortened(in_words(row)) for row in rows])
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    panels[0].set_xlim(0, 128)
    panels[0].set_xticks([0, 50, 100])
    if whole:
        panels[0].get_yticklabels()[0].set_fontweight("bold")
    return figure


def _draw_method(
    axes: Axes, index: int, values: Mapping[str, float], rows: Sequence[str], best: Mapping[str, float]
) -> None:
    colour, hatch = bar_look(index)
    shown = [(place, name) for place, name in enumerate(rows) if name in values]
    places, widths = [place for place, _ in shown], [100 * values[name] for _, name in shown]
    axes.barh(places, widths, 0.72, color=colour, hatch=hatch, edgecolor="white", lw=0)
    for (place, name), width in zip(shown, widths, strict=True):
        weight = "bold" if _shown(values[name]) == best.get(name) else "normal"
        axes.text(width + 2, place, f"{width:.1f}", va="center_baseline", fontsize=SMALL_POINTS, weight=weight)
    make_plain(axes, grid="x")
    axes.tick_params(axis="y", length=0)


def _shown(value: float) -> float:
    """A value in percent, rounded as it is printed: values that are printed alike count as equal."""
    return round(100 * value, 1)
