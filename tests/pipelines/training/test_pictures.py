"""Curves of a training: percent, words, and values to compare with."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.figure import Figure

from dhpf.pipelines.training.pictures import training_pictures
from tests.dhpf.drawing.seen import all_text, assert_nothing_is_cut_off

BASELINES = {"searched layers 1, 6 (untrained, 16 pairs)": 0.917}


def history(num_epochs: int) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch,
            "loss": 3.0,
            "cross_entropy": 2.5,
            "selection_rate_term": 0.5,
            "val_pck": 0.9 + 0.001 * epoch,
            "seconds": 1.0,
            "selection_rates": [0.5, 1.0],
        }
        for epoch in range(1, num_epochs + 1)
    ]


def drawn(num_epochs: int, baselines: dict[str, float]) -> dict[str, Figure]:
    pictures = dict(training_pictures(history(num_epochs), "PCK@0.1 image", baselines))
    assert all(isinstance(picture, Figure) for picture in pictures.values())
    return {name: picture for name, picture in pictures.items() if isinstance(picture, Figure)}


@pytest.mark.parametrize("num_epochs", [1, 4, 100])
def test_names_are_words_and_nothing_is_cut_off(num_epochs: int) -> None:
    pictures = drawn(num_epochs, BASELINES)

    assert set(pictures) == {"loss", "validation-pck", "selection-rates"}
    for picture in pictures.values():
        assert_nothing_is_cut_off(picture)
        assert not any("_" in word for word in all_text(picture))
    assert {"cross entropy", "selection rate term"} <= set(all_text(pictures["loss"]))


def test_validation_is_drawn_in_percent_beside_untrained_layers_on_an_axis_of_ten_points() -> None:
    axes = drawn(4, BASELINES)["validation-pck"].axes[0]
    trained, searched = axes.lines
    low, high = axes.get_ylim()

    assert list(trained.get_ydata()) == pytest.approx([90.1, 90.2, 90.3, 90.4])
    assert list(searched.get_ydata()) == pytest.approx([91.7, 91.7])
    assert searched.get_label() in BASELINES
    assert high - low == pytest.approx(10)
    assert axes.get_ylabel() == "PCK@0.1 (image), mean over pairs, %"


def test_without_a_search_the_curve_stands_alone() -> None:
    assert len(drawn(2, {})["validation-pck"].axes[0].lines) == 1
