"""Methods class by class: bars, names, numbers, sizes."""

from __future__ import annotations

import itertools

import pytest

from dhpf.drawing import draw_class_bars
from tests.dhpf.drawing.seen import all_text, assert_nothing_is_cut_off


def test_classes_are_rows_and_methods_are_columns_of_bars() -> None:
    classes = [f"class_{i}" for i in range(20)]
    table = {
        "ours": {name: 0.01 * n for n, name in enumerate(classes)},
        "theirs": {name: 1.0 for name in classes[1:]},
        "others": {name: 0.5 for name in classes},
    }
    figure = draw_class_bars(table, {"ours": 0.095, "theirs": 1.0, "others": 0.5}, "By class")
    ours, theirs, others = figure.axes

    labels = [label.get_text() for label in ours.get_yticklabels()]
    assert labels == ["all pairs", *(f"class {i}" for i in reversed(range(20)))], "the first method's best come first"
    assert [bar.get_width() for bar in ours.patches] == pytest.approx([9.5, *reversed(range(20))])
    assert [bar.get_width() for bar in theirs.patches] == pytest.approx([100] * 20)
    assert [bar.get_y() + bar.get_height() / 2 for bar in theirs.patches] == pytest.approx(range(20))
    assert [bar.get_width() for bar in others.patches] == pytest.approx([50] * 21)
    assert [text.get_text() for text in ours.texts[:3]] == ["9.5", "19.0", "18.0"]
    assert {text.get_fontweight() for text in theirs.texts} == {"bold"}
    assert [text.get_fontweight() for text in others.texts] == [*["normal"] * 20, "bold"], (
        "best where theirs is missing"
    )
    for axes in figure.axes:
        spans = sorted((bar.get_y(), bar.get_y() + bar.get_height()) for bar in axes.patches)
        assert all(before[1] < after[0] for before, after in itertools.pairwise(spans))
    assert {"ours", "theirs", "others", "By class"} <= set(all_text(figure))
    assert_nothing_is_cut_off(figure)


@pytest.mark.parametrize(("num_classes", "num_methods"), [(1, 1), (2, 9), (5, 4), (20, 4), (101, 3)])
def test_names_of_any_number_of_classes_stay_apart(num_classes: int, num_methods: int) -> None:
    classes = {f"class with a long name {i}": 1.0 for i in range(num_classes)}
    names = [f"method {i} with a long name" for i in range(num_methods)]
    figure = draw_class_bars({name: classes for name in names}, dict.fromkeys(names, 0.5), "Many")

    assert_nothing_is_cut_off(figure)
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(boxes) == num_classes + 1
    assert all(upper.y0 >= lower.y1 - 2 for upper, lower in itertools.pairwise(boxes))
    heads = [axes._left_title.get_window_extent() for axes in figure.axes]
    assert all(before.x1 <= after.x0 for before, after in itertools.pairwise(heads))
