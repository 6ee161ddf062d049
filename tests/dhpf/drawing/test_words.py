"""Stored names as people write them."""

from __future__ import annotations

import pytest

from dhpf.drawing import in_words


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ("PCK@0.1 image", "PCK@0.1 (image)"),
        ("PCK@0.05 keypoint-extent", "PCK@0.05 (keypoint-extent)"),
        ("PCK@0.1 (image)", "PCK@0.1 (image)"),
        ("PCK@0.1", "PCK@0.1"),
        ("LT-ACC", "LT-ACC"),
        ("cross_entropy", "cross entropy"),
        ("electric_guitar", "electric guitar"),
        ("all pairs", "all pairs"),
    ],
)
def test_names_are_written_for_people(stored: str, words: str) -> None:
    assert in_words(stored) == words
