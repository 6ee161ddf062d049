"""The picture of a search over sets of layers."""

from __future__ import annotations

import pytest

from dhpf.drawing import draw_layer_search
from tests.dhpf.drawing.seen import all_text, assert_nothing_is_cut_off


def test_a_layer_search_shows_every_set_and_what_the_best_ones_use() -> None:
    levels = [{(0,): 0.2, (1,): 0.5, (2,): 0.4}, {(0, 1): 0.45, (1, 2): 0.75, (0, 2): 0.5}]
    kept = [[(1,), (2,)], [(1, 2), (0, 2)]]
    figure = draw_layer_search(levels, kept, 3, "PCK, %", "Search")
    top, heat, _ = figure.axes
    scored, extended, best = (dots.get_offsets().tolist() for dots in top.collections)

    assert scored == [[0, 20], [0, 50], [0, 40], [1, 45], [1, 75], [1, 50]]
    assert extended == [[0, 50], [0, 40], [1, 75], [1, 50]]
    assert best == [[1, 75]]
    assert heat.images[0].get_array().tolist() == [[0, 50], [50, 50], [50, 100]]
    assert heat.collections[0].get_offsets().tolist() == [[0, 1], [1, 1], [1, 2]]
    assert [label.get_text() for label in heat.get_xticklabels()] == ["1", "2"]
    assert {"Search", "50.0", "75.0", "extended sets that use the layer, %"} <= set(all_text(figure))
    assert_nothing_is_cut_off(figure)


@pytest.mark.parametrize(("num_layers", "num_levels"), [(1, 1), (34, 8), (17, 17)])
def test_layer_searches_of_any_size_are_legible(num_layers: int, num_levels: int) -> None:
    levels = [{tuple(range(size + 1)): 0.5} for size in range(num_levels)]
    assert_nothing_is_cut_off(draw_layer_search(levels, [list(level) for level in levels], num_layers, "PCK", "Search"))


def test_a_layer_search_refuses_kept_sets_that_were_not_scored() -> None:
    with pytest.raises(ValueError, match="in no level"):
        draw_layer_search([{(0,): 0.5}], [[(1,)]], 2, "PCK", "Search")
