from __future__ import annotations

from typing import Any

from dhpf.pipelines.gallery.rows import evaluation_details, match_details, rounded
from dhpf.pipelines.outputs.tables import PREDICTIONS, table_of
from tests.pipelines.gallery.made_up_run import POINTS, match_row, prediction_row


def stored(**more: Any) -> dict[str, Any]:
    """A row of predictions as its table gives it back."""
    [row] = table_of([prediction_row(0, "a", "b", {}, **more)], PREDICTIONS).to_pylist()
    return dict(row)


def test_matches_are_points_with_their_confidence() -> None:
    row = match_row(3, "a", "b", {}, given_points=[[1.04, 2.0]], transferred_points=[[3.0, 4.06]])
    found = match_details(row | {"transferred_valid": [False]})
    assert found["id"] == "000000004" and found["sizes"] == [(60, 40), (60, 40)]
    assert found["matches"][0] == [5.0, 5.0, 8.0, 5.0, 0.9]
    assert found["given"] == [[1.0, 2.0, 3.0, 4.1, False]]


def test_keypoints_have_their_truth_and_whether_they_are_correct() -> None:
    found = evaluation_details(stored(), "PCK@0.1 image", [("PCK@0.1 (image)", 0.5)])
    exact, _, wrong, without = found["keypoints"]
    assert exact == [5.0, 5.0, 5.0, 5.0, 5.0, 5.0, True, 0.9]
    assert wrong == [50.0, 30.0, 5.0, 35.0, 50.0, 30.0, False, 0.6]
    assert without == [10.0, 35.0, None, None, 10.0, 35.0, False, 0.4]
    assert found["values"] == [["PCK@0.1 (image)", 0.5]] and found["seconds"] == 0.25
    assert found["matches"][0] == [5.0, 5.0, 5.0, 5.0, None]


def test_a_pair_without_truth_is_neither_right_nor_wrong() -> None:
    row = stored(target_keypoints=None)
    assert [keypoint[4:7] for keypoint in evaluation_details(row, None, ())["keypoints"]] == [[None] * 3] * 4


def test_a_failed_pair_has_no_points() -> None:
    row = dict.fromkeys(PREDICTIONS.names) | {"pair_id": "1"}
    found = evaluation_details(row, "PCK@0.1 image", ())
    assert found["matches"] == [] and found["keypoints"] == [] and found["outlines"] == [[], [], []]


def test_numbers_that_are_not_finite_are_left_out() -> None:
    assert rounded(float("nan"), 2) is None and rounded(None, 2) is None and rounded(1.239, 2) == 1.24
    row = match_row(0, "a", "b", {}, target_points=[[float("inf"), 1.0], *POINTS[1:]])
    assert match_details(row | {"given_points": None, "transferred_points": None})["matches"][0][2] is None
