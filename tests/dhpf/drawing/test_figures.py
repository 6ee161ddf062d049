"""Figures, legends and names that all charts share."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from dhpf.drawing import (
    draw_class_bars,
    draw_curves,
    draw_differences,
    draw_layer_search,
    draw_layer_selection,
    draw_pck_bars,
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
