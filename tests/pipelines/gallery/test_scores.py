from __future__ import annotations

from pathlib import Path

import pytest

import dhpf.results
from dhpf.pipelines.gallery.scores import read_scores
from tests.pipelines.gallery.made_up_run import prediction_row, write_evaluation


def test_scores_are_found_by_pair_and_averaged_by_class(tmp_path: Path) -> None:
    rows = [prediction_row(n, "a", "b", {}, category="cats" if n < 3 else "dogs") for n in (0, 1, 2, 4)]
    write_evaluation(tmp_path, rows)
    scores = read_scores(dhpf.results.open(tmp_path / "evaluate" / "warps" / "test" / "all" / "scores"))
    assert scores.metric == "PCK@0.1 image"
    assert scores.main == pytest.approx({0: 0.5, 1: 0.6, 2: 0.7, 4: 0.9})
    assert scores.of_pair(4) == [("PCK@0.05 (image)", 0.25), ("PCK@0.1 (image)", pytest.approx(0.9))]
    assert scores.of_pair(3) == []
    assert scores.for_page() == [
        ["PCK@0.05 (image)", 0.25, 4, [["cats", 0.25, 3], ["dogs", 0.25, 1]]],
        ["PCK@0.1 (image)", 0.675, 4, [["cats", 0.6, 3], ["dogs", 0.9, 1]]],
    ]


def test_an_evaluation_without_truth_has_no_scores(tmp_path: Path) -> None:
    write_evaluation(tmp_path, [prediction_row(0, "a", "b", {}, status="broken")])
    scores = read_scores(dhpf.results.open(tmp_path / "evaluate" / "warps" / "test" / "all" / "scores"))
    assert scores.metric is None and scores.main == {} and scores.for_page() == [] and scores.of_pair(0) == []
