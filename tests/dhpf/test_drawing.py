"""Pictures are read back pixel by pixel: what must be seen is there, at its place, in its colour."""

from __future__ import annotations

import csv
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from skimage import data

from dhpf.drawing import (
    contact_sheet,
    draw_class_bars,
    draw_curves,
    draw_differences,
    draw_layer_search,
    draw_layer_selection,
    draw_masks,
    draw_matches,
    draw_pck_bars,
    draw_warp,
    save_picture,
    warp_source_onto_target,
)
from dhpf.drawing.style import AGREEMENT, RIGHT, WRONG, Colour, colours_by_place, font, wrapped
from dhpf.images import RGB, read_image
from dhpf.records import Points

DATA = Path(os.environ.get("DHPF_DATA", Path(__file__).resolve().parents[2] / ".." / "shared" / "data"))

DARK, LIGHT = 70, 180


def points(*rows: tuple[float, float]) -> Points:
    return np.array(rows, dtype=np.float32).reshape(-1, 2)


def plain(height: int, width: int, grey: int) -> RGB:
    return np.full((height, width, 3), grey, dtype=np.uint8)


SOURCE, TARGET = plain(100, 100, DARK), plain(100, 150, LIGHT)


def is_colour(picture: RGB, colour: Colour, tolerance: int = 12) -> np.ndarray:
    return (np.abs(picture.astype(int) - colour) <= tolerance).all(axis=2)


def rectangle(picture: RGB, grey: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the plain image of this grey."""
    found = is_colour(picture, (grey, grey, grey), 4)
    # Letters are grey at their edges, too, but nowhere for so long.
    rows, columns = np.flatnonzero(found.sum(axis=1) > 60), np.flatnonzero(found.sum(axis=0) > 25)
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def place(picture: RGB, grey: int, size: tuple[int, int], point: tuple[float, float]) -> tuple[int, int]:
    """(row, column) in the picture of a point of the plain image of this grey and (width, height)."""
    left, top, right, bottom = rectangle(picture, grey)
    return (
        round(top + point[1] * (bottom - top) / size[1] - 0.5),
        round(left + point[0] * (right - left) / size[0] - 0.5),
    )


def inside(picture: RGB, grey: int) -> RGB:
    left, top, right, bottom = rectangle(picture, grey)
    return picture[top:bottom, left:right]


# -- matches -----------------------------------------------------------------------------------------------------


def test_images_stand_side_by_side_at_one_height() -> None:
    picture = draw_matches(SOURCE, TARGET, points(), points())
    left, right = rectangle(picture, DARK), rectangle(picture, LIGHT)

    assert (left[2] - left[0], left[3] - left[1]) == pytest.approx((400, 400), abs=2)
    assert (right[2] - right[0], right[3] - right[1]) == pytest.approx((600, 400), abs=2)
    assert right[0] > left[2] + 10
    assert (picture[:15] == 255).all() and (picture[:, :15] == 255).all() and (picture[:, -15:] == 255).all()


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


def test_more_confidence_makes_a_thicker_line() -> None:
    def painted(confidence: float) -> int:
        picture = draw_matches(
            SOURCE,
            TARGET,
            points((50, 50)),
            points((75, 50)),
            correct=np.array([True]),
            confidence=np.array([confidence], dtype=np.float32),
        )
        row, column = place(picture, DARK, (100, 100), (80, 50))
        red, _, blue = picture[row - 10 : row + 10, column].astype(int).T
        return int((blue - red).sum())

    assert painted(0.0) < painted(0.5) < painted(1.0)


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


def test_lists_of_different_lengths_are_an_error() -> None:
    with pytest.raises(ValueError, match="2 source points"):
        draw_matches(SOURCE, TARGET, points((1, 1), (2, 2)), points((1, 1)))
    with pytest.raises(ValueError, match="1 source points"):
        draw_matches(SOURCE, TARGET, points((1, 1)), points((1, 1)), valid=np.ones(2, dtype=bool))


def test_a_long_title_takes_two_lines_at_most() -> None:
    heights = [
        draw_matches(SOURCE, TARGET, points(), points(), title=title).shape[0] for title in ("", "a", "a " * 999)
    ]

    assert heights[1] - heights[0] == heights[2] - heights[1] > 0


def test_text_is_wrapped_at_words_and_cut_with_an_ellipsis() -> None:
    face = font(13)
    width = face.getlength("three short words")

    assert wrapped("three  short\nwords", face, width, 1) == ["three short words"]
    assert wrapped("three short words again", face, width, 2) == ["three short words", "again"]
    assert wrapped("", face, width, 2) == []
    lines = wrapped("anUnbreakableNameWithoutASingleSpaceInIt" * 3, face, width, 2)
    assert len(lines) == 2 and lines[1].endswith("\N{HORIZONTAL ELLIPSIS}")
    assert max(map(face.getlength, lines)) <= width


def test_colours_follow_the_place_and_grow_lighter() -> None:
    row = points(*[(10 * i, 3 * (i % 2)) for i in range(12)])
    colours = colours_by_place(row)
    lightness = [0.3 * r + 0.59 * g + 0.11 * b for r, g, b in colours]
    order = np.random.default_rng(3).permutation(12)

    assert len(set(colours)) == 12
    assert all(later > earlier for earlier, later in itertools.pairwise(lightness))
    assert colours_by_place(row[order]) == [colours[i] for i in order]
    assert colours_by_place(row[:, ::-1]) == colours  # along y where y extends more
    assert colours_by_place(points()) == []


# -- masks -------------------------------------------------------------------------------------------------------


def blended(grey: int, colour: Colour) -> Colour:
    r, g, b = (round(0.45 * grey + 0.55 * part) for part in colour)
    return r, g, b


def test_masks_show_what_is_covered_missed_and_added() -> None:
    true = points((10, 10), (60, 10), (60, 90), (10, 90))
    transferred = points((40, 10), (90, 10), (90, 90), (40, 90))
    picture = draw_masks(SOURCE, plain(100, 100, LIGHT), true, true, transferred, title="a pair")
    target = inside(picture, LIGHT)
    scale = target.shape[0] / 100

    for x, colour in ((25, RIGHT), (50, AGREEMENT), (75, WRONG)):
        assert is_colour(target, blended(LIGHT, colour))[round(50 * scale), round(x * scale)]
    assert (target[round(50 * scale), round(96 * scale)] == LIGHT).all()
    assert is_colour(picture, blended(DARK, RIGHT))[place(picture, DARK, (100, 100), (35, 50))]


def test_without_a_transferred_outline_the_true_mask_stands_alone() -> None:
    square = points((10, 10), (60, 10), (60, 90), (10, 90))
    target = inside(draw_masks(SOURCE, plain(100, 100, LIGHT), square, square, points()), LIGHT)

    assert not is_colour(target, blended(LIGHT, AGREEMENT)).any()
    assert not is_colour(target, blended(LIGHT, WRONG)).any()
    assert 0.35 < is_colour(target, blended(LIGHT, RIGHT)).mean() < 0.42  # 50 x 80 of 100 x 100, less the line


# -- warps -------------------------------------------------------------------------------------------------------


def coordinates_image(height: int = 200, width: int = 250) -> RGB:
    """An image whose red is x and whose green is y: a warped pixel tells where it came from."""
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


# -- contact sheets ----------------------------------------------------------------------------------------------


def test_a_contact_sheet_places_pictures_row_by_row() -> None:
    sheet = contact_sheet([plain(50, 80, 30), plain(90, 40, 90), plain(60, 60, 150)], ["a", "b", "c"], columns=2)
    first, second, third = (rectangle(sheet, grey) for grey in (30, 90, 150))

    assert first[2] < second[0]
    assert third[1] > max(first[3], second[3]) + 20  # the captions stand between
    assert third[2] < second[0]


def test_contact_sheets_at_their_ends() -> None:
    assert contact_sheet([], [], columns=3).shape[2] == 3
    assert contact_sheet([SOURCE], ["long " * 200], columns=9).shape[1] < 700
    with pytest.raises(ValueError, match="1 pictures, 2 captions"):
        contact_sheet([SOURCE], ["a", "b"], columns=1)
    with pytest.raises(ValueError, match="0 columns"):
        contact_sheet([SOURCE], ["a"], columns=0)


# -- charts ------------------------------------------------------------------------------------------------------


def assert_nothing_is_cut_off(figure: Figure) -> None:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    needed = figure.get_tightbbox(canvas.get_renderer())
    width, height = figure.get_size_inches()
    title = figure.texts[0].get_window_extent()
    drawn_boxes = [axes.get_tightbbox(canvas.get_renderer()) for axes in figure.axes]
    assert all(box is not None and box.y1 <= title.y0 for box in drawn_boxes)
    assert needed.x0 >= 0.1 and needed.y0 >= 0.06 and needed.x1 <= width - 0.1 and needed.y1 <= height - 0.1


def all_text(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]


def test_layer_selection_shows_the_rates_and_their_mean() -> None:
    rates = np.array([[0.0, 0.25, 0.75], [0.5, 0.25, 0.25]])
    figure = draw_layer_selection(rates, ["cat", "dog"], [0, 3, 7], "Layers")
    top, heat, _ = figure.axes

    np.testing.assert_array_equal(heat.images[0].get_array(), rates)
    assert heat.images[0].get_clim() == (0, 1)
    assert [bar.get_height() for bar in top.patches] == [0.25, 0.25, 0.5]
    assert [label.get_text() for label in heat.get_xticklabels()] == ["0", "3", "7"]
    assert [label.get_text() for label in heat.get_yticklabels()] == ["cat", "dog"]
    assert {"Layers", "share of pairs that use the layer"} <= set(all_text(figure))


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
    figure = draw_pck_bars({"ours": {"PCK@0.1": 0.757, "IoU": 0.5}, "theirs": {"PCK@0.1": 0.8}}, "Scores")
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    weights = {text.get_text(): text.get_fontweight() for text in figure.axes[0].texts}

    assert heights == pytest.approx([75.7, 50.0, 80.0])
    assert weights == {"75.7": "normal", "50.0": "bold", "80.0": "bold"}
    assert {"ours", "theirs", "Scores"} <= set(all_text(figure))


def test_many_methods_stay_apart() -> None:
    table = {f"method {i}": {f"PCK@{a} keypoint-extent": 0.5 for a in (0.05, 0.1, 0.15)} for i in range(12)}
    figure = draw_pck_bars(table, "Twelve methods")
    bars = figure.axes[0].patches
    spans = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars)
    looks = {(bar.get_facecolor(), bar.get_hatch()) for bar in bars}

    assert_nothing_is_cut_off(figure)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(spans))
    assert len(looks) == 12


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


def test_a_layer_search_shows_every_set_and_what_the_best_ones_use() -> None:
    levels = [{(0,): 0.2, (1,): 0.5, (2,): 0.4}, {(0, 1): 0.45, (1, 2): 0.75, (0, 2): 0.5}]
    kept = [[(1,), (2,)], [(1, 2), (0, 2)]]
    figure = draw_layer_search(levels, kept, 3, "PCK, %", "Search")
    top, heat, _ = figure.axes
    scored, extended, best = (dots.get_offsets().tolist() for dots in top.collections)

    assert scored == [[0, 20], [0, 50], [0, 40], [1, 45], [1, 75], [1, 50]]
    assert extended == [[0, 50], [0, 40], [1, 75], [1, 50]]
    assert best == [[1, 75]]
    assert heat.images[0].get_array().tolist() == [[0, 0.5], [0.5, 0.5], [0.5, 1]]
    assert heat.collections[0].get_offsets().tolist() == [[0, 1], [1, 1], [1, 2]]
    assert [label.get_text() for label in heat.get_xticklabels()] == ["1", "2"]
    assert {"Search", "50.0", "75.0", "share of the extended sets"} <= set(all_text(figure))
    assert_nothing_is_cut_off(figure)


@pytest.mark.parametrize(("num_layers", "num_levels"), [(1, 1), (34, 8), (17, 17)])
def test_layer_searches_of_any_size_are_legible(num_layers: int, num_levels: int) -> None:
    levels = [{tuple(range(size + 1)): 0.5} for size in range(num_levels)]
    assert_nothing_is_cut_off(draw_layer_search(levels, [list(level) for level in levels], num_layers, "PCK", "Search"))


def test_a_layer_search_refuses_kept_sets_that_were_not_scored() -> None:
    with pytest.raises(ValueError, match="in no level"):
        draw_layer_search([{(0,): 0.5}], [[(1,)]], 2, "PCK", "Search")


def test_curves_go_through_their_points() -> None:
    series = {"loss": [(1.0, 3.0), (2.0, 2.0), (3.0, 0.5)], "never measured": []}
    figure = draw_curves(series, "epoch", "loss", "Training")
    (line,) = figure.axes[0].lines

    assert list(zip(*line.get_data(), strict=True)) == series["loss"]
    assert figure.axes[0].get_ylim()[0] == 0
    assert_nothing_is_cut_off(figure)
    assert all(float(label.get_text()).is_integer() for label in figure.axes[0].get_xticklabels())
    assert {"epoch", "loss", "Training"} <= set(all_text(figure))


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


@pytest.mark.parametrize(
    "figure",
    [
        draw_layer_selection(np.zeros((0, 17)), [], list(range(17)), "No pairs"),
        draw_pck_bars({}, "No methods"),
        draw_class_bars({"ours": {}}, "PCK", "No classes"),
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


# -- files -------------------------------------------------------------------------------------------------------


def test_pictures_and_charts_are_saved_as_png(tmp_path: Path) -> None:
    picture = draw_matches(SOURCE, TARGET, points((5, 5)), points((5, 5)))
    save_picture(picture, tmp_path / "picture.png")
    save_picture(draw_curves({"loss": [(1, 1)]}, "epoch", "loss", "Training"), tmp_path / "chart")

    np.testing.assert_array_equal(read_image(tmp_path / "picture.png"), picture)
    assert read_image(tmp_path / "chart").shape[1] == pytest.approx(6.4 * 130, abs=1)


def test_drawing_needs_neither_torch_nor_a_screen() -> None:
    code = "import sys, dhpf.drawing; print([m for m in ('torch', 'ray', 'matplotlib.pyplot') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.strip() == "[]"


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
