"""Charts of benchmarks.scaling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dhpf.drawing.style import CATEGORIES, TEXT_POINTS, TITLE_POINTS

FEWEST = "#9e9e9e"


def draw_collections(costs: Sequence[Mapping[str, Any]]) -> Figure:
    """Cost, reuse and memory against the number of images, a line for each kind of pairs."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    time, reuse, memory = figure.subplots(1, 3)
    for colour, words in zip(CATEGORIES, dict.fromkeys(cost["pairs"] for cost in costs), strict=False):
        chosen = [cost for cost in costs if cost["pairs"] == words]
        sizes = [cost["num_images"] for cost in chosen]
        time.plot(sizes, [c["cpu_ms_per_pair"] for c in chosen], "o-", color=colour, label=words)
        reuse.plot(sizes, [c["described_per_pair"] for c in chosen], "o-", color=colour)
        reuse.plot(sizes, [c["fewest"] for c in chosen], ":", color=colour)
        memory.plot(sizes, [c["plan_mb"] + c["block_mb"] for c in chosen], "o-", color=colour)
    reuse.axhline(2, color=FEWEST, linewidth=1)
    reuse.annotate("every pair on its own", (costs[0]["num_images"], 2), (0, 3), textcoords="offset points", fontsize=8)
    reuse.set_ylim(0, 2.4)
    for axes, title in (
        (time, "CPU ms per pair"),
        (reuse, "images described per pair\n(dotted: no plan needs fewer)"),
        (memory, "MB to plan, and to match a block"),
    ):
        axes.set_title(title, fontsize=TEXT_POINTS)
        axes.set_xscale("log")
        axes.set_xlabel("images in the collection", fontsize=TEXT_POINTS)
        _plain(axes)
    for axes in (time, memory):
        axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=TEXT_POINTS)
    figure.suptitle("What a pair costs as the collection grows", fontsize=TITLE_POINTS)
    return figure


def draw_actors(rates: Mapping[int, Sequence[float]]) -> Figure:
    """Pairs per second against the number of actors: each round, and what one actor's median would come to."""
    figure = Figure(figsize=(4, 3.2), layout="constrained")
    axes = figure.subplots()
    counts = list(rates)
    single = sorted(rates[counts[0]])[len(rates[counts[0]]) // 2]
    axes.plot([0, *counts], [0, *(single * count for count in counts)], ":", color=FEWEST, label="in proportion")
    for round_rates in zip(*rates.values(), strict=True):
        axes.plot(counts, round_rates, "o-", color=CATEGORIES[0], alpha=0.7)
    axes.set_xticks(counts)
    axes.set_xlim(0, max(counts) + 0.3)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("actors", fontsize=TEXT_POINTS)
    axes.set_title("pairs per second, each line one round", fontsize=TEXT_POINTS)
    axes.legend(frameon=False, fontsize=TEXT_POINTS)
    _plain(axes)
    return figure


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=TEXT_POINTS)
    axes.grid(axis="y", alpha=0.3)
