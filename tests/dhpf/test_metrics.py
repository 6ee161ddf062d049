"""Metrics against values worked out by hand."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from skimage import draw

from dhpf.errors import InputError
from dhpf.metrics import (
    THRESHOLDS,
    correct_keypoints,
    framed_target,
    intersection_over_union,
    label_transfer_accuracy,
    pck,
    rasterise,
    summarise,
    threshold_side,
)
from dhpf.records import Points

DATA = Path(os.environ.get("DHPF_DATA", Path(__file__).resolve().parents[2] / ".." / "shared" / "data"))


def points(*rows: tuple[float, float]) -> Points:
    return np.array(rows, dtype=np.float32).reshape(-1, 2)


ALL_VALID = np.ones(4, dtype=bool)
TRUE = points((10, 10), (50, 10), (50, 90), (10, 90))


def test_threshold_sides_of_one_pair_by_hand() -> None:
    keypoints = points((20, 100), (70, 220), (40, 150))  # 50 wide, 120 high
    box = (10.0, 90.0, 100.0, 230.0)  # 90 wide, 140 high

    assert threshold_side("image", keypoints, box) == 240
    assert threshold_side("keypoint-extent", keypoints, box) == 120
    assert threshold_side("legacy-padded", keypoints, box) == 221  # from -1, the padding, to 220
    assert threshold_side("box", keypoints, box) == 140


def test_a_target_is_framed_with_the_side_of_its_thresholds() -> None:
    keypoints, box = points((0, 0), (60, 120)), (0.0, 0.0, 60.0, 120.0)
    framed, side = framed_target(keypoints, box, (120, 480), False, "box")
    assert framed.tolist() == [[0, 0], [120, 60]] and side == 120
    mirrored, side = framed_target(keypoints, None, (120, 480), True, "keypoint-extent")
    assert mirrored.tolist() == [[240, 0], [120, 60]] and side == 120
    with pytest.raises(InputError, match="no target box"):
        framed_target(keypoints, None, (120, 480), False, "box")


def test_legacy_padding_changes_nothing_once_all_columns_are_used() -> None:
    keypoints = points(*[(100 + i, 50) for i in range(40)])

    assert threshold_side("legacy-padded", keypoints, None) == 39
    assert threshold_side("legacy-padded", keypoints[:39], None) == 139  # x from the padding's -1 to 138


def test_legacy_padding_does_not_shorten_an_extent_that_starts_left_of_the_frame() -> None:
    assert threshold_side("legacy-padded", points((-6, 0), (14, 0)), None) == 20


def test_an_unknown_threshold_is_refused_with_the_choices() -> None:
    with pytest.raises(InputError, match="'bbox'.*box, image, keypoint-extent, legacy-padded"):
        threshold_side("bbox", TRUE, None)


@pytest.mark.parametrize(
    ("name", "keypoints", "box", "says"),
    [
        ("box", TRUE, None, "no target box"),
        ("box", TRUE, (5.0, 5.0, 5.0, 5.0), "must be positive"),
        ("keypoint-extent", points(), None, "no keypoints"),
        ("legacy-padded", points(), None, "no keypoints"),
        ("keypoint-extent", points((7, 7)), None, "must be positive"),
    ],
)
def test_a_pair_without_the_side_is_refused(
    name: str, keypoints: Points, box: tuple[float, float, float, float] | None, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        threshold_side(name, keypoints, box)


def test_thresholds_cannot_be_changed_by_accident() -> None:
    with pytest.raises(TypeError):
        THRESHOLDS["image"] = lambda keypoints, box: 1.0  # type: ignore[index]


def test_pck_counts_a_distance_of_exactly_the_threshold() -> None:
    # Off by 0, by 5 (the 3-4-5 triangle), by exactly 10, and by just more than 10, of 100.
    predicted = TRUE + points((0, 0), (3, 4), (10, 0), (0, 10.001))

    np.testing.assert_array_equal(
        correct_keypoints(predicted, TRUE, ALL_VALID, 100, (0.01, 0.05, 0.1, 0.11)),
        [
            [True, False, False, False],
            [True, True, False, False],
            [True, True, True, False],
            [True, True, True, True],
        ],
    )
    np.testing.assert_array_equal(pck(predicted, TRUE, ALL_VALID, 100, (0.01, 0.05, 0.1, 0.11)), [0.25, 0.5, 0.75, 1])


def test_a_point_without_prediction_is_wrong_whatever_stands_there() -> None:
    predicted = TRUE.copy()
    predicted[1] = np.nan
    valid = np.array([True, False, False, True])

    np.testing.assert_array_equal(pck(predicted, TRUE, valid, 240, (0.1,)), [0.5])

    corner = points((0, 0))  # where a placeholder of 0 would be right by chance
    np.testing.assert_array_equal(pck(corner, corner, np.array([False]), 240, (0.1,)), [0])


def test_a_valid_prediction_that_is_not_finite_is_an_error() -> None:
    predicted = TRUE.copy()
    predicted[1, 0] = np.nan

    with pytest.raises(ValueError, match="not finite"):
        pck(predicted, TRUE, ALL_VALID, 240, (0.1,))


def test_a_pair_without_keypoints_has_no_pck() -> None:
    with pytest.raises(ValueError, match="without keypoints"):
        pck(points(), points(), np.zeros(0, dtype=bool), 240, (0.1,))


@pytest.mark.parametrize(("predicted", "valid"), [(TRUE[:3], ALL_VALID), (TRUE, ALL_VALID[:3])])
def test_shapes_that_disagree_are_an_error(predicted: Points, valid: np.ndarray) -> None:
    with pytest.raises(ValueError, match="not \\(K, 2\\)"):
        pck(predicted, TRUE, valid, 240, (0.1,))


def test_a_rectangle_has_the_area_of_a_rectangle() -> None:
    mask = rasterise(points((10, 20), (40, 20), (40, 30), (10, 30)))

    assert mask.shape == (240, 240)
    assert mask.sum() == 30 * 10
    assert mask[20:30, 10:40].all()


def test_a_pentagram_is_hollow_by_the_even_odd_rule() -> None:
    angles = np.deg2rad(-90 + 144 * np.arange(5))
    mask = rasterise((60 + 50 * np.stack([np.cos(angles), np.sin(angles)], axis=1)).astype(np.float32), side=120)

    assert not mask[60, 60]
    assert mask[25, 60]  # inside the upper tip


def test_a_polygon_may_leave_the_frame_by_far() -> None:
    assert rasterise(points((-1e30, -1e30), (1e30, -1e30), (1e30, 1e30), (-1e30, 1e30))).all()
    assert rasterise(points((1e30, 5), (5, 5), (5, 10))).sum() == 5 * 235
    assert not rasterise(points((300, 300), (400, 300), (400, 400))).any()


@pytest.mark.parametrize("outline", [points(), points((3, 3)), points((0, 0), (100, 100)), points(*[(5, 5)] * 4)])
def test_an_outline_that_encloses_nothing_is_an_empty_mask(outline: Points) -> None:
    assert not rasterise(outline).any()


def test_masks_agree_with_an_independent_rasteriser() -> None:
    rng = np.random.default_rng(7)
    for num_corners in (3, 4, 12, 50):
        outline = (rng.random((num_corners, 2)) * 340 - 50).astype(np.float32)
        expected = np.zeros((240, 240), dtype=bool)
        expected[draw.polygon(outline[:, 1].astype(float), outline[:, 0].astype(float), expected.shape)] = True

        np.testing.assert_array_equal(rasterise(outline), expected)


def test_an_outline_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(ValueError, match="finite"):
        rasterise(points((0, 0), (np.nan, 5), (5, 5)))


def test_mask_agreement_by_hand() -> None:
    # Two 10 x 10 squares that share 5 x 10 pixels of a 20 x 20 frame.
    transferred = rasterise(points((0, 0), (10, 0), (10, 10), (0, 10)), side=20)
    target = rasterise(points((5, 0), (15, 0), (15, 10), (5, 10)), side=20)

    assert intersection_over_union(transferred, target) == pytest.approx(50 / 150)
    assert label_transfer_accuracy(transferred, target) == pytest.approx(300 / 400)


def test_mask_agreement_at_its_ends() -> None:
    empty, full = np.zeros((20, 20), dtype=bool), np.ones((20, 20), dtype=bool)

    assert (intersection_over_union(empty, empty), label_transfer_accuracy(empty, empty)) == (1, 1)
    assert (intersection_over_union(full, full), label_transfer_accuracy(full, full)) == (1, 1)
    assert (intersection_over_union(empty, full), label_transfer_accuracy(empty, full)) == (0, 0)
    with pytest.raises(ValueError, match="compared"):
        intersection_over_union(empty, full[:10])


def test_summary_names_the_mean_over_pairs_and_over_keypoints() -> None:
    summary = summarise({"pck_0.1": [1.0, 0.5, 0.0]}, ["cat", "dog", "dog"], [1, 10, 5])

    assert summary == {
        "pck_0.1": pytest.approx(0.5),
        "pck_0.1/per_keypoint": pytest.approx(6 / 16),
        "pck_0.1/class/cat": pytest.approx(1.0),
        "pck_0.1/class/dog": pytest.approx(0.25),
    }


def test_summary_without_keypoints_categories_or_pairs() -> None:
    assert summarise({"iou": [0.25, 0.75], "lt_acc": [1, 0]}, ["", ""]) == {"iou": 0.5, "lt_acc": 0.5}
    assert summarise({"iou": []}, []) == {}


@pytest.mark.parametrize(
    ("values", "num_keypoints"),
    [([1.0], None), ([1.0, np.nan], None), ([1.0, 1.0], [3]), ([1.0, 1.0], [3, 0])],
)
def test_summary_refuses_what_does_not_add_up(values: list[float], num_keypoints: list[int] | None) -> None:
    with pytest.raises(ValueError, match="expected"):
        summarise({"pck": values}, ["cat", "dog"], num_keypoints)


def test_legacy_threshold_is_looser_on_every_real_pf_willow_pair() -> None:
    table = DATA / "PF-WILLOW" / "test_pairs.csv"
    if not table.is_file():
        pytest.skip("PF-WILLOW is not there; set DHPF_DATA to the folder that holds it")
    with table.open(newline="") as file:
        rows = [np.array(row[22:42], dtype=np.float32).reshape(2, 10).T for row in list(csv.reader(file))[1:]]

    own = np.array([threshold_side("keypoint-extent", row, None) for row in rows])
    legacy = np.array([threshold_side("legacy-padded", row, None) for row in rows])

    assert len(rows) == 900
    assert (legacy > own).all()
    np.testing.assert_allclose(legacy, [row.max() + 1 for row in rows], rtol=1e-6)
