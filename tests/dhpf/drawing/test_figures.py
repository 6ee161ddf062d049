"""Figures, legends and names that all charts share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from dhpf.drawing import (
    draw_class_bars,
    draw_curves,
    draw_differences,
    draw_layer_search,
    draw_layer_selection,
    draw_pck_bars,
    save_picture,
)
from tests.dhpf.drawing.seen import all_text, assert_nothing_is_cut_off


@pytest.mark.parametrize(
    "figure",
    [
        draw_layer_selection(np.zeros((0, 17)), [], list(range(17)), "No pairs"),
        draw_pck_bars({}, "No methods"),
        draw_class_bars({"ours": {}}, {"ours": 0.5}, "No classes"),
        draw_layer_search([], [], 17, "PCK", "No sets"),
        draw_pck_bars({"ours": {}}, "No metrics"),
        draw_curves({}, "epoch", "loss", "No series"),
        draw_curves({"loss": []}, "epoch", "loss", "No points"),
        draw_differences({}, "No benchmarks"),
    ],
    ids=["pairs", "methods", "classes", "sets", "metrics", "series", "points", "benchmarks"],
)
def test_a_chart_of_nothing_says_so(figure: Figure) -> None:
    assert_nothing_is_cut_off(figure)
    assert "nothing to show" in all_text(figure)


ODD = ["$\\foo$", "$_$", "a $ b", "$$", "{x}^2", "\x1b[31m", "\u732b", "back\\slash"]


@pytest.mark.parametrize("name", ODD)
def test_any_name_can_be_drawn(name: str, tmp_path: Path) -> None:
    figures = [
        draw_class_bars({name: {name: 0.5, "cat": 0.4}}, {name: 0.5}, name),
        draw_pck_bars({name: {name: 0.5}}, name),
        draw_curves({name: [(1, 1.0), (2, 0.5)]}, name, name, name),
        draw_differences({name: (0.0, 0.1, 0.2)}, name),
    ]
    for number, figure in enumerate(figures):
        save_picture(figure, tmp_path / f"{number}.png")
        with Image.open(tmp_path / f"{number}.png") as picture:
            assert picture.size[0] > 100


def test_a_logarithmic_axis_keeps_its_powers(tmp_path: Path) -> None:
    figure = Figure()
    axes = figure.add_subplot()
    axes.set_title("$x$")
    axes.semilogy([1, 100], [1, 1e4])
    save_picture(figure, tmp_path / "x.png")
    assert {label.get_parse_math() for label in axes.get_yticklabels()} == {True}
    assert not axes.title.get_parse_math()
