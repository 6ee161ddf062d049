"""Warped images, in which each pixel's colour tells where in the source it came from."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from dhpf.drawing import draw_warp, warp_source_onto_target
from dhpf.images import RGB, read_image
from dhpf.records import Points
from tests.dhpf.drawing.seen import SOURCE, plain, points

DATA = Path(os.environ.get("DHPF_DATA", Path(__file__).resolve().parents[3] / ".." / "shared" / "data"))


def coordinates_image(height: int = 200, width: int = 250) -> RGB:
    """An image whose red value is x and whose green value is y, so that a warped pixel tells where it came from."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.zeros_like(x)], axis=2).astype(np.uint8)


def spread_points(num: int, seed: int = 0) -> Points:
    return (np.random.default_rng(seed).random((num, 2)) * (250, 200)).astype(np.float32)


def came_from(warped: RGB, x: int, y: int) -> tuple[int, int]:
    return int(warped[y, x, 0]), int(warped[y, x, 1])


@pytest.mark.parametrize("num_points", [0, 2, 4, 40])
def test_points_that_stay_leave_the_image_as_it_is(num_points: int) -> None:
    source, still = coordinates_image(), spread_points(num_points)

    warped = warp_source_onto_target(source, (200, 250), still, still)

    assert np.abs(warped.astype(int) - source).max() <= 1


@pytest.mark.parametrize("num_points", [4, 40])
def test_a_shift_moves_the_image_and_leaves_white_behind(num_points: int) -> None:
    here = spread_points(num_points)

    warped = warp_source_onto_target(coordinates_image(), (200, 250), here, here + np.float32([30, 20]))

    assert came_from(warped, 130, 120) == pytest.approx((100, 100), abs=1)
    assert (warped[:18] == 255).all() and (warped[:, :28] == 255).all()
    assert (warped[22:, 32:, 2] == 0).all()


@pytest.mark.parametrize(
    "here", [points((50, 50), (200, 150)), points(*[(20 * i, 10 * i) for i in range(10)]), points(*[(9, 9)] * 8)]
)
def test_points_that_tell_no_plane_give_a_plain_resize(here: Points) -> None:
    warped = warp_source_onto_target(coordinates_image(), (100, 500), here, here + 7)

    assert warped.shape == (100, 500, 3)
    assert came_from(warped, 400, 25) == pytest.approx((200, 50), abs=1)


def test_a_bend_is_followed() -> None:
    # The target's columns hang through like a rope: up to 30 pixels in the middle.
    target = np.stack(np.meshgrid(np.linspace(10, 240, 8), np.linspace(10, 190, 6)), axis=-1).reshape(-1, 2)
    sag = 30 * (1 - ((target[:, 0] - 125) / 125) ** 2)
    source = (target - np.stack([np.zeros_like(sag), sag], axis=1)).astype(np.float32)

    warped = warp_source_onto_target(coordinates_image(), (200, 250), source, target.astype(np.float32))

    assert came_from(warped, 125, 130) == pytest.approx((125, 100), abs=3)
    assert came_from(warped, 15, 130) == pytest.approx((15, 123), abs=3)  # 30 * (1 - (110 / 125)^2) = 6.8


def test_a_third_of_stray_matches_hardly_matters() -> None:
    here = spread_points(90)
    there = here * np.float32(0.8) + np.float32([20, 10])
    there[::3] = spread_points(90, seed=1)[::3]

    warped = warp_source_onto_target(coordinates_image(), (200, 250), here, there)

    for x, y in ((60, 50), (120, 90), (180, 150)):
        assert came_from(warped, x, y) == pytest.approx(((x - 20) / 0.8, (y - 10) / 0.8), abs=4)


def test_points_that_are_not_finite_are_passed_over() -> None:
    here = spread_points(40)
    there = here.copy()
    there[5] = np.nan
    here[6, 0] = np.inf

    warped = warp_source_onto_target(coordinates_image(), (200, 250), here, there)

    assert came_from(warped, 130, 120) == pytest.approx((130, 120), abs=1)


def test_a_large_source_is_averaged_not_sampled() -> None:
    stripes = plain(1000, 1000, 0)
    stripes[::5] = 255
    corners = points((0, 0), (1000, 0), (0, 1000), (1000, 1000))

    warped = warp_source_onto_target(stripes, (100, 100), corners, corners / 10)

    assert np.abs(warped[5:-5, 5:-5].astype(int) - 51).max() < 10


def test_unequal_numbers_of_points_are_an_error() -> None:
    with pytest.raises(ValueError, match="3 source points, 2 target points"):
        warp_source_onto_target(SOURCE, (10, 10), spread_points(3), spread_points(2))


def test_a_turned_photo_is_turned_back() -> None:
    photo = data.chelsea()
    height, width = photo.shape[:2]
    turned = np.asarray(Image.fromarray(photo).rotate(20, resample=Image.Resampling.BICUBIC))
    angle, middle = np.deg2rad(20), np.array([width / 2, height / 2])
    here = spread_points(30) * np.float32([1.2, 1.0]) + np.float32([70, 50])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    there = ((here - middle) @ turn.T + middle).astype(np.float32)

    back = warp_source_onto_target(turned, (height, width), there, here)

    centre = np.s_[80:220, 130:320]
    assert np.abs(back[centre].astype(int) - photo[centre]).mean() < 4


def test_a_warp_is_shown_beside_its_blend() -> None:
    picture = draw_warp(plain(100, 100, 10), plain(100, 100, 100), plain(100, 100, 200))

    for grey in (10, 100, 200, 150):
        assert (picture == grey).all(axis=2).sum() > 0.8 * 280 * 280


def test_real_pairs_warp_their_keypoints_onto_each_other() -> None:
    table = DATA / "PF-WILLOW" / "test_pairs.csv"
    if not table.is_file():
        pytest.skip("PF-WILLOW is not there; set DHPF_DATA to the folder that holds it")
    with table.open(newline="") as file:
        rows = list(csv.reader(file))[1::200]
    for row in rows:
        values = np.array(row[2:], dtype=np.float32).reshape(4, 10)
        here, there = values[:2].T, values[2:].T
        source, target = read_image(DATA / row[0]), read_image(DATA / row[1])
        marked = np.zeros_like(source)
        for x, y in here.astype(int):
            marked[max(0, y - 6) : y + 7, max(0, x - 6) : x + 7] = 255

        warped = warp_source_onto_target(marked, target.shape[:2], here, there)

        hits = [
            warped[min(int(y), target.shape[0] - 1), min(int(x), target.shape[1] - 1)].max() > 100 for x, y in there
        ]
        assert np.mean(hits) >= 0.7, row[:2]
