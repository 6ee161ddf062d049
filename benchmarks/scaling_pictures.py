"""Charts of benchmarks.scaling; `python -m benchmarks.scaling_pictures` draws them again from docs/scaling.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from dhpf.drawing import save_picture
from dhpf.drawing.figures import legend_below, make_plain, new_figure
from dhpf.drawing.style import CATEGORIES, SMALL_POINTS, TEXT_POINTS

DOCS = Path(__file__).parents[1] / "docs"
FEWEST = "#7f7f7f"


def draw_collections(costs: Sequence[Mapping[str, Any]]) -> Figure:
    """Cost, images described per pair, and memory over the number of images, a line for each choice of pairs."""
    figure = new_figure(10.0, 3.3, "What a pair costs as the collection grows")
    time, reuse, memory = figure.subplots(1, 3)
    kinds = list(dict.fromkeys(cost["pairs"] for cost in costs))
    for index, words in enumerate(kinds):
        chosen = [cost for cost in costs if cost["pairs"] == words]
        sizes = [cost["num_images"] for cost in chosen]
        colour, style = CATEGORIES[index], "os^"[index % 3] + "-"
        time.plot(sizes, [c["cpu_ms_per_pair"] for c in chosen], style, color=colour, label=words)
        reuse.plot(sizes, [c["described_per_pair"] for c in chosen], style, color=colour)
        reuse.plot(sizes, [c["fewest"] for c in chosen], ":", color=colour)
        memory.plot(sizes, [c["plan_mb"] + c["block_mb"] for c in chosen], style, color=colour)
    reuse.axhline(2, color=FEWEST, linewidth=1)
    above = (costs[0]["num_images"], 2), (0, 3)
    reuse.annotate("every pair on its own", *above, textcoords="offset points", fontsize=SMALL_POINTS)
    reuse.set_ylim(0, 2.4)
    for axes, title in (
        (time, "CPU milliseconds per pair"),
        (reuse, "images described per pair\n(dotted: no plan needs fewer)"),
        (memory, "MB to plan, and to match a block"),
    ):
        axes.set_title(title, fontsize=TEXT_POINTS)
        axes.set_xscale("log")
        axes.set_xticks(sorted({cost["num_images"] for cost in costs}))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:,.0f}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("images in the collection", fontsize=TEXT_POINTS)
        make_plain(axes)
    for axes in (time, memory):
        axes.set_ylim(0, 1.1 * axes.dataLim.y1)
    legend_below(figure, kinds, time.get_lines())
    return figure


def draw_actors(rates: Mapping[int, Sequence[float]]) -> Figure:
    """Pairs per second over the number of actors: each round, and the median of one actor times that number."""
    figure = new_figure(5.0, 3.3, "Pairs per second by actors")
    axes = figure.subplots()
    counts = list(rates)
    single = sorted(rates[counts[0]])[len(rates[counts[0]]) // 2]
    labels = ["in proportion to one actor's median", "a round"]
    axes.plot([0, *counts], [0, *(single * count for count in counts)], ":", color=FEWEST, label=labels[0])
    for number, round_rates in enumerate(zip(*rates.values(), strict=True)):
        axes.plot(counts, round_rates, "o-", color=CATEGORIES[0], alpha=0.7, label=None if number else labels[1])
    axes.set_xticks(counts)
    axes.set_xlim(0, max(counts) + 0.3)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("actors", fontsize=TEXT_POINTS)
    axes.set_ylabel("pairs per second", fontsize=TEXT_POINTS)
    make_plain(axes)
    legend_below(figure, labels)
    return figure


def save_charts(costs: Sequence[Mapping[str, Any]], rates: Mapping[int, Sequence[float]], folder: Path) -> None:
    """Writes both charts into a folder."""
    save_picture(draw_collections(costs), folder / "scaling-collection.png")
    save_picture(draw_actors(rates), folder / "scaling-actors.png")


def main() -> None:
    measured = json.loads((DOCS / "scaling.json").read_text())
    rates = {int(count): values for count, values in measured["pairs_per_second"].items()}
    save_charts(measured["collections"], rates, DOCS)


if __name__ == "__main__":
    main()
