"""Curves go through their points, beside values to compare with, on an axis that does not exaggerate."""

from __future__ import annotations

import pytest

from dhpf.drawing import draw_curves
from tests.dhpf.drawing.seen import all_text, assert_nothing_is_cut_off


def test_curves_go_through_their_points() -> None:
    series = {"loss": [(1.0, 3.0), (2.0, 2.0), (3.0, 0.5)], "never measured": []}
    figure = draw_curves(series, "epoch", "loss", "Training")
    (line,) = figure.axes[0].lines

    assert list(zip(*line.get_data(), strict=True)) == series["loss"]
    assert figure.axes[0].get_ylim()[0] == 0
    assert_nothing_is_cut_off(figure)
    assert all(float(label.get_text()).is_integer() for label in figure.axes[0].get_xticklabels())
    assert {"epoch", "loss", "Training"} <= set(all_text(figure))


def test_small_changes_look_small() -> None:
    series = {"trained": [(1.0, 89.8), (2.0, 89.6), (3.0, 90.4)]}
    low, high = draw_curves(series, "epoch", "PCK, %", "Validation", least_range=10).axes[0].get_ylim()
    exact = draw_curves(series, "epoch", "PCK, %", "Validation").axes[0].get_ylim()

    assert high - low == pytest.approx(10) and low < 89.6 and high > 90.4
    assert exact[1] - exact[0] < 1


def test_a_range_wide_enough_stays_as_it_is() -> None:
    series = {"trained": [(1.0, 50.0), (2.0, 90.0)]}
    low, high = draw_curves(series, "epoch", "PCK, %", "Validation", least_range=10).axes[0].get_ylim()

    assert 40 < low < 50 and 90 < high < 100


@pytest.mark.parametrize("num_levels", [1, 2, 4])
def test_values_to_compare_with_are_named_lines_within_the_axis(num_levels: int) -> None:
    levels = {f"untrained, the layers of set number {n} on 16 pairs": 80.0 + 5 * n for n in range(num_levels)}
    figure = draw_curves({"trained": [(1.0, 95.0)]}, "epoch", "PCK, %", "Validation", levels=levels, least_range=10)
    axes = figure.axes[0]
    flat = {line.get_label(): line.get_ydata()[0] for line in axes.lines[1:]}

    assert flat == levels
    assert axes.get_ylim()[0] < 80 and axes.get_ylim()[1] > 95
    assert set(levels) | {"trained"} <= set(all_text(figure))
    assert_nothing_is_cut_off(figure)
