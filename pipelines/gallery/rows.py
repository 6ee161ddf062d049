"""What the gallery's page gets of each pair, as JSON values: points are in original pixels, rounded to a tenth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from dhpf.pipelines.stages.evaluate import correct_keypoints_of

_PAIR = ("number", "pair_id", "category", "source", "target", "status", "layers")
_SHOWN = (*_PAIR, "source_sha256", "target_sha256", "mirrored", "source_size", "target_size", "confidence")

MATCH_COLUMNS = (*_SHOWN, "score", "source_points", "target_points", "given_points", "transferred_points")
MATCH_COLUMNS_OF_ALL = (*_PAIR, "score")
EVALUATION_COLUMNS = (
    *_SHOWN,
    *("seconds", "source_keypoints", "target_keypoints", "predicted_keypoints", "valid", "target_box"),
    *("source_outline", "target_outline", "predicted_outline", "matches_source", "matches_target"),
)
EVALUATION_COLUMNS_OF_ALL = _PAIR
"""Columns of the tables that are read of the pairs to show, and of all pairs."""


def match_details(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of correspondences for the page."""
    return _details(row) | {
        "matches": _joined(row["source_points"], row["target_points"], row["confidence"]),
        "given": _joined(row["given_points"], row["transferred_points"], row.get("transferred_valid")),
    }


def evaluation_details(
    row: Mapping[str, Any], metric: str | None, values: Sequence[tuple[str, float]]
) -> dict[str, Any]:
    """A row of predictions for the page.

    Args:
        metric: by which a keypoint is correct or wrong, such as "PCK@0.1 image"; None where there is none.
        values: of the pair, by the metric's name.
    """
    return _details(row) | {
        "matches": _joined(row["matches_source"], row["matches_target"], None),
        "keypoints": _keypoints(row, metric),
        "outlines": [_points(row[f"{side}_outline"]) for side in ("source", "target", "predicted")],
        "values": [[name, rounded(value, 4)] for name, value in values],
        "seconds": rounded(row["seconds"], 3),
    }


def rounded(value: float | None, digits: int) -> float | None:
    """A number for the page; None for one that is missing or not finite."""
    return None if value is None or not isfinite(value) else round(float(value), digits)


def _details(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": row["pair_id"], "mirrored": row["mirrored"], "sizes": [row["source_size"], row["target_size"]]}


def _points(points: Sequence[Sequence[float]] | None) -> list[list[float | None]]:
    return [[rounded(x, 1), rounded(y, 1)] for x, y in points or ()]


def _joined(
    source: Sequence[Sequence[float]] | None, target: Sequence[Sequence[float]] | None, more: Sequence[Any] | None
) -> list[list[Any]]:
    """[x, y, x', y', confidence or validity] of each match."""
    pairs = list(zip(_points(source), _points(target), strict=True))
    last = [None] * len(pairs) if more is None else [v if isinstance(v, bool) else rounded(v, 3) for v in more]
    return [[*a, *b, value] for (a, b), value in zip(pairs, last, strict=True)]


def _keypoints(row: Mapping[str, Any], metric: str | None) -> list[list[Any]]:
    """[x, y, predicted x, y, true x, y or null, is correct or null, confidence] of each keypoint."""
    source, predicted = _points(row["source_keypoints"]), _points(row["predicted_keypoints"])
    true = _points(row["target_keypoints"]) or [[None, None]] * len(source)
    correct: Sequence[bool | None] = _correct(row, metric) or [None] * len(source)
    valid, confidence = row["valid"] or (), row["confidence"] or ()
    return [
        [*a, *(b if is_valid else (None, None)), *c, is_correct, rounded(value, 3)]
        for a, b, c, is_correct, is_valid, value in zip(
            source, predicted, true, correct, valid, confidence, strict=True
        )
    ]


def _correct(row: Mapping[str, Any], metric: str | None) -> list[bool] | None:
    """Whether each keypoint is correct by a PCK metric, such as "PCK@0.1 image"."""
    if metric is None or not metric.startswith("PCK@"):
        return None
    alpha, _, threshold = metric.removeprefix("PCK@").partition(" ")
    correct = correct_keypoints_of(row, threshold, (float(alpha),))
    return None if correct is None else [bool(value) for value in correct[0]]
