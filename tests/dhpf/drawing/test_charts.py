"""Charts are read back: their values, their words, and that nothing is cut off."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dhpf.drawing import draw_differences, draw_layer_selection, draw_pck_bars
from tests.dhpf.drawing.seen import all_text, assert_nothing_is_cut_off


def test_layer_selection_shows_the_rates_and_their_mean() -> None:
    rates = np.array([[0.0, 0.25, 0.75], [0.5, 0.25, 0.25]])
    figure = draw_layer_selection(rates, ["cat", "dog"], [0, 3, 7], "Layers")
    top, heat, _ = figure.axes

    np.testing.assert_array_equal(heat.images[0].get_array(), 100 * rates)
    assert heat.images[0].get_clim() == (0, 100)
    assert [bar.get_height() for bar in top.patches] == [25, 25, 50]
    assert [label.get_text() for label in heat.get_xticklabels()] == ["0", "3", "7"]
    assert [label.get_text() for label in heat.get_yticklabels()] == ["cat", "dog"]
    assert {"Layers", "pairs that use the layer, %"} <= set(all_text(figure))


@pytest.mark.parametrize(("num_rows", "num_layers"), [(1, 1), (1, 34), (101, 17), (400, 3)])
def test_layer_selection_of_any_size_is_legible(num_rows: int, num_layers: int) -> None:
    names = [f"a class with a name that is far too long {i}" for i in range(num_rows)]
    figure = draw_layer_selection(
        np.full((num_rows, num_layers), 0.5), names, list(range(num_layers)), "A title of many words " * 12
    )

    assert_nothing_is_cut_off(figure)
    boxes = [label.get_window_extent() for label in figure.axes[1].get_yticklabels()]
    assert all(upper.y0 >= lower.y1 - 3 for upper, lower in itertools.pairwise(boxes))


def test_layer_selection_refuses_names_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="for 1 rows and 3 layers"):
        draw_layer_selection(np.zeros((2, 3)), ["cat"], [0, 1, 2], "")


def test_pck_bars_show_percentages_and_leave_out_what_is_missing() -> None:
    figure = draw_pck_bars({"ours": {"PCK@0.1 image": 0.757, "IoU": 0.5}, "theirs": {"PCK@0.1 image": 0.8}}, "Scores")
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    weights = {text.get_text(): text.get_fontweight() for text in figure.axes[0].texts}

    assert heights == pytest.approx([75.7, 50.0, 80.0])
    assert weights == {"75.7": "normal", "50.0": "bold", "80.0": "bold"}
    assert {"ours", "theirs", "Scores", "PCK@0.1 (image)"} <= set(all_text(figure))


def test_many_methods_stay_apart() -> None:
    table = {f"method {i}": {f"PCK@{a} keypoint-extent": 0.5 for a in (0.05, 0.1, 0.15)} for i in range(12)}
    figure = draw_pck_bars(table, "Twelve methods")
    bars = figure.axes[0].patches
    spans = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars)
    looks = {(bar.get_facecolor(), bar.get_hatch()) for bar in bars}

    assert_nothing_is_cut_off(figure)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(spans))
    assert len(looks) == 12


def test_differences_stand_where_their_numbers_say() -> None:
    intervals = {"a/test": (-0.01, 0.02, 0.05), "b/test": (-0.08, -0.05, -0.02)}
    figure = draw_differences(intervals, "Version 3 against version 2")
    zero, *drawn = figure.axes[0].lines

    assert list(zero.get_xdata()) == [0, 0]
    for row, (low, mean, high) in enumerate(intervals.values()):
        interval, dot = drawn[2 * row : 2 * row + 2]
        np.testing.assert_allclose(interval.get_xdata(), [100 * low, 100 * high])
        np.testing.assert_allclose(dot.get_xdata(), [100 * mean])
    assert drawn[0].get_color() != drawn[2].get_color(), "a fall beyond its interval stands out"
    assert {"+2.0 [-1.0, +5.0]", "-5.0 [-8.0, -2.0]", "a/test", "b/test"} <= set(all_text(figure))
    assert_nothing_is_cut_off(figure)
