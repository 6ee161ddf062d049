"""Rows, scores and summaries without Ray or a network; the stage as a whole is tested by every run."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from dhpf.frame import cell_centres
from dhpf.model.transfer import MutualMatches, PairMatch
from dhpf.pipelines.matching.describing import ImageFacts
from dhpf.pipelines.matching.matched_pair import MatchedPair, common_row
from dhpf.pipelines.outputs.tables import PREDICTIONS, SCORES, table_of
from dhpf.pipelines.stages.evaluate import (
    MethodScores,
    PredictionRows,
    correct_keypoints_of,
    score_pair,
    summarise_scores,
)
from dhpf.records import PairRecord

SIZE = (240, 240)
FACTS = ImageFacts(SIZE, "f" * 64)
POINTS = np.array([[60, 60], [120, 120], [180, 60]], dtype=np.float32)
SQUARE = np.array([[40, 40], [120, 40], [120, 120], [40, 120]], dtype=np.float32)


def row_of(shift: float, **annotations: Any) -> dict[str, Any]:
    """The stored row of a pair in which every point is found `shift` pixels further right."""
    centres = cell_centres()
    points = centres + torch.tensor([shift, 0.0])
    match = PairMatch(points, torch.full((3600,), 0.5), MutualMatches(centres[:2], points[:2], torch.ones(2)))
    record = PairRecord("p", "cat", "a", "b", **annotations)
    made = PredictionRows()(MatchedPair(0, record, FACTS, FACTS, match, (3, 5), 0.25))
    [stored] = table_of([made], PREDICTIONS).to_pylist()
    return dict(stored)


def test_a_row_holds_the_transferred_keypoints_and_the_truth() -> None:
    row = row_of(6, source_keypoints=POINTS, target_keypoints=POINTS)
    assert np.allclose(row["predicted_keypoints"], POINTS + [6, 0], atol=1e-3)
    assert row["target_keypoints"] == POINTS.tolist() and row["valid"] == [True] * 3
    assert row["confidence"] == pytest.approx([0.5] * 3)
    assert (row["layers"], row["seconds"], row["predicted_outline"]) == (1 << 3 | 1 << 5, 0.25, None)
    assert len(row["matches_source"]) == 2


def test_points_are_wanted_as_far_as_there_is_a_truth() -> None:
    rows = PredictionRows()
    assert rows.wanted_points(PairRecord("p", "", "a", "b")) == []
    outlined = PairRecord("p", "", "a", "b", source_outline=SQUARE)
    assert rows.wanted_points(outlined) == [], "an outline of the source alone scores nothing"
    both = PairRecord("p", "", "a", "b", source_keypoints=POINTS, source_outline=SQUARE, target_outline=SQUARE)
    assert [len(points) for points in rows.wanted_points(both)] == [3, 4]


def test_a_pair_is_scored_by_each_threshold_and_alpha() -> None:
    far = POINTS + np.array([[0, 0], [30, 0], [0, 0]], dtype=np.float32)
    row = row_of(6, source_keypoints=POINTS, target_keypoints=far)
    scores = score_pair(row, ("image",), (0.05, 0.1, 0.2))
    assert [score["metric"] for score in scores] == ["PCK@0.05 image", "PCK@0.1 image", "PCK@0.2 image"]
    assert [score["num_correct"] for score in scores] == [2, 3, 3], "6 and 24 pixels off, of 12, 24 and 48 allowed"
    assert [score["value"] for score in scores] == pytest.approx([2 / 3, 1, 1])
    assert {score["num_keypoints"] for score in scores} == {3}


def test_an_outline_is_scored_by_the_masks() -> None:
    right, apart = (
        {s["metric"]: s["value"] for s in score_pair(row, (), ())}
        for row in (row_of(shift, source_outline=SQUARE, target_outline=SQUARE) for shift in (0, 40))
    )
    assert right["IoU"] > 0.95 and right["LT-ACC"] > 0.99
    assert apart["IoU"] == pytest.approx(1 / 3, abs=0.05) and apart["LT-ACC"] < right["LT-ACC"]


def test_a_pair_without_truth_has_no_score() -> None:
    assert score_pair(row_of(0), ("image",), (0.1,)) == []
    lonely = row_of(0, source_keypoints=POINTS[:1], target_keypoints=POINTS[:1])
    assert correct_keypoints_of(lonely, "keypoint-extent", (0.1,)) is None, "one keypoint has no extent"
    failed = PredictionRows().failed(common_row(1, PairRecord("q", "", "a", "b"), FACTS, ImageFacts(failure="damaged")))
    [stored] = table_of([failed], PREDICTIONS).to_pylist()
    assert score_pair(stored, ("image",), (0.1,)) == []


def test_a_summary_is_the_mean_over_pairs_with_layers_and_seconds() -> None:
    rows = [row_of(shift, source_keypoints=POINTS, target_keypoints=POINTS) for shift in (0, 100)]
    scores = pa.Table.from_pylist([s for row in rows for s in score_pair(row, ("image",), (0.1,))], schema=SCORES)
    summary = summarise_scores(table_of(rows, PREDICTIONS), scores)
    assert summary["PCK@0.1 image"] == pytest.approx(0.5)
    assert (summary["layers"], summary["seconds"]) == (2, 0.25)


def test_pairs_that_the_means_are_not_over_are_counted() -> None:
    good = [row_of(0, source_keypoints=POINTS, target_keypoints=POINTS) for _ in range(3)]
    failed = PredictionRows().failed(common_row(1, PairRecord("q", "", "a", "b"), FACTS, ImageFacts(failure="damaged")))
    assert scored(good).left_out() is None
    assert scored([row_of(0)]).left_out() is None, "nothing has a truth"
    assert scored([*good, failed]).left_out() == "all: means over 3 of 4 pairs; 1 pair failed, the first: damaged"
    assert scored([*good, failed, row_of(0)]).left_out() == (
        "all: means over 3 of 5 pairs; 1 pair failed, the first: damaged; 1 without what its score needs"
    )
    one_box = good[:2] + [
        row_of(0, source_keypoints=POINTS, target_keypoints=POINTS, target_box=(1.0, 2.0, 90.0, 80.0))
    ]
    assert str(scored(one_box, "image", "box").left_out()).startswith("all: means over 1 of 3 pairs; 2 without")
    assert str(scored([failed]).left_out()).startswith("all: means over 0 of 1 pair; 1 pair failed")


def scored(rows: list[Any], *thresholds: str) -> MethodScores:
    table = table_of(rows, PREDICTIONS)
    scores = [s for row in table.to_pylist() for s in score_pair(row, thresholds or ("image",), (0.1,))]
    return MethodScores("photos/test", "all", table, pa.Table.from_pylist(scores, schema=SCORES), {})
