"""Two images on a page: their sizes, their points' places, the title."""

from __future__ import annotations

import numpy as np
import pytest

from dhpf.drawing import draw_masks, draw_matches, draw_warp, warp_source_onto_target
from dhpf.drawing.style import RIGHT
from tests.dhpf.drawing.seen import DARK, LIGHT, SOURCE, TARGET, is_colour, plain, points, rectangle


def test_images_stand_side_by_side_at_one_height() -> None:
    picture = draw_matches(SOURCE, TARGET, points(), points())
    left, right = rectangle(picture, DARK), rectangle(picture, LIGHT)

    assert (left[2] - left[0], left[3] - left[1]) == pytest.approx((400, 400), abs=2)
    assert (right[2] - right[0], right[3] - right[1]) == pytest.approx((600, 400), abs=2)
    assert right[0] > left[2] + 10
    assert (picture[:15] == 255).all() and (picture[:, :15] == 255).all() and (picture[:, -15:] == 255).all()


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2000, 9), (9, 2000), (1, 3000), (700, 500)])
def test_any_shape_of_image_gives_a_picture_of_a_sensible_size(shape: tuple[int, int]) -> None:
    image = plain(*shape, DARK)
    everything = points((0, 0), (shape[1], shape[0]), (shape[1] / 2, shape[0] / 2))
    for picture in (
        draw_matches(image, TARGET, everything, everything, true_points=everything, title="any shape"),
        draw_masks(image, image, everything, everything, everything),
        draw_warp(image, image, warp_source_onto_target(image, shape, everything, everything)),
    ):
        assert picture.dtype == np.uint8 and picture.shape[2] == 3
        assert 80 <= picture.shape[0] <= 700 and 400 <= picture.shape[1] <= 2000


def test_points_follow_an_image_that_is_shown_stretched() -> None:
    strip = plain(9, 2000, DARK)
    picture = draw_matches(strip, TARGET, points((1500, 1)), points((75, 50)), correct=np.array([True]))
    left, top, right, bottom = rectangle(picture, DARK)

    assert (right - left, bottom - top) == pytest.approx((640, 40), abs=2)
    assert is_colour(picture, RIGHT)[round(top + 40 * 1 / 9), round(left + 640 * 0.75)]


def test_a_long_title_takes_two_lines_at_most() -> None:
    heights = [
        draw_matches(SOURCE, TARGET, points(), points(), title=title).shape[0] for title in ("", "a", "a " * 999)
    ]

    assert heights[1] - heights[0] == heights[2] - heights[1] > 0
