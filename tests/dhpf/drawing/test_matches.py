"""Pictures of matches are read back pixel by pixel: what must be seen is there, at its place, in its colour."""

from __future__ import annotations

import numpy as np
import pytest

from dhpf.drawing import draw_matches
from dhpf.drawing.style import RIGHT, WRONG
from tests.dhpf.drawing.seen import DARK, LIGHT, SOURCE, TARGET, inside, is_colour, place, points, rectangle


def test_verdicts_are_drawn_at_their_points() -> None:
    picture = draw_matches(
        SOURCE, TARGET, points((20, 30), (70, 80)), points((30, 20), (120, 60)), correct=np.array([True, False])
    )

    for grey, size, right, wrong in (
        (DARK, (100, 100), (20, 30), (70, 80)),
        (LIGHT, (150, 100), (30, 20), (120, 60)),
    ):
        assert is_colour(picture, RIGHT)[place(picture, grey, size, right)]
        assert is_colour(picture, WRONG)[place(picture, grey, size, wrong)]


def test_a_verdict_is_not_told_by_colour_alone() -> None:
    right, wrong = (
        draw_matches(SOURCE, TARGET, points((50, 50)), points((75, 50)), correct=np.array([verdict]))
        for verdict in (True, False)
    )
    row, column = place(right, DARK, (100, 100), (50, 50))
    around = np.s_[row - 8 : row + 9, column - 8 : column + 9]
    on_line = np.s_[row, column + 20 : rectangle(right, DARK)[2] - 5]

    assert (is_colour(right[around], RIGHT) != is_colour(wrong[around], WRONG)).sum() > 20
    assert is_colour(right[on_line][None], RIGHT, 60).mean() > 0.9
    assert 0.3 < is_colour(wrong[on_line][None], WRONG, 60).mean() < 0.7


def test_the_true_point_is_a_ring_joined_to_the_prediction() -> None:
    predicted, true = (40.0, 50.0), (90.0, 50.0)
    picture = draw_matches(
        SOURCE, TARGET, points((50, 5)), points(predicted), true_points=points(true), correct=np.array([False])
    )
    row, column = place(picture, LIGHT, (150, 100), true)

    assert is_colour(picture, (LIGHT, LIGHT, LIGHT), 30)[row - 3, column]
    assert is_colour(picture, WRONG, 30)[row - 9 : row - 5, column].any()
    joint = picture[row, place(picture, LIGHT, (150, 100), (65, 50))[1]]
    assert joint.max() < 120  # the dark line between them


def test_a_point_without_prediction_is_a_hollow_cross_on_the_source_alone() -> None:
    predicted = points((10, 10), (np.nan, np.nan), (75, 50))
    picture = draw_matches(
        SOURCE, TARGET, points((20, 20), (50, 80), (80, 20)), predicted, valid=np.array([False, True, False])
    )

    assert is_colour(inside(picture, LIGHT), (LIGHT, LIGHT, LIGHT), 4).all()
    for point in ((20, 20), (50, 80), (80, 20)):
        row, column = place(picture, DARK, (100, 100), point)
        assert picture[row, column].min() > 240
        assert (picture[row - 6 : row + 7, column - 6 : column + 7] != 255).any()


def test_a_prediction_far_outside_stays_at_the_edge_of_its_own_image() -> None:
    picture = draw_matches(SOURCE, TARGET, points((95, 50)), points((-900, 50)), correct=np.array([True]))
    right, top, _, bottom = rectangle(picture, LIGHT)

    assert is_colour(picture, RIGHT)[(top + bottom) // 2, right - 5]
    assert (picture[:, rectangle(picture, DARK)[0] : place(picture, DARK, (100, 100), (90, 50))[1]] != RIGHT).any()
    assert not is_colour(inside(picture, DARK)[:, :300], RIGHT).any()


def test_lists_of_different_lengths_are_an_error() -> None:
    with pytest.raises(ValueError, match="2 source points"):
        draw_matches(SOURCE, TARGET, points((1, 1), (2, 2)), points((1, 1)))
    with pytest.raises(ValueError, match="1 source points"):
        draw_matches(SOURCE, TARGET, points((1, 1)), points((1, 1)), valid=np.ones(2, dtype=bool))
