"""Methods class by class: bars, names, sizes."""

from __future__ import annotations

import itertools

import pytest

from dhpf.drawing import draw_class_bars
from tests.dhpf.drawing.seen import assert_nothing_is_cut_off


def test_classes_are_groups_of_bars_in_rows() -> None:
    classes = [f"class {i}" for i in range(20)]
    table = {
        "ours": {name: 0.01 * n for n, name in enumerate(classes)},
        "theirs": {name: 1.0 for name in classes[1:]},
        "others": {name: 0.5 for name in classes},
    }
    figure = draw_class_bars(table, "PCK", "By class")

    assert len(figure.axes) == 2
    labels = [label.get_text() for axes in figure.axes for label in axes.get_xticklabels()]
    heights = [bar.get_height() for axes in figure.axes for bar in axes.patches]
    assert labels == classes
    assert heights == pytest.approx([*range(10), *[100] * 9, *[50] * 10, *range(10, 20), *[100] * 10, *[50] * 10])
    assert [text.get_text() for text in figure.axes[0].texts[:3]] == ["0", "1", "2"]
    for axes in figure.axes:
        spans = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches)
        assert all(before[1] < after[0] for before, after in itertools.pairwise(spans))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ours", "theirs", "others"]
    assert_nothing_is_cut_off(figure)


@pytest.mark.parametrize(("num_classes", "num_methods"), [(1, 1), (2, 6), (40, 4)])
def test_class_bars_of_any_number_are_legible(num_classes: int, num_methods: int) -> None:
    classes = {f"class {i}": 1.0 for i in range(num_classes)}
    assert_nothing_is_cut_off(draw_class_bars({f"method {i}": classes for i in range(num_methods)}, "PCK", "Many"))
