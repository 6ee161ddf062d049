from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dhpf.pipelines.outputs.exports import shared_keypoints as module
from dhpf.pipelines.outputs.exports.rows import PairRow
from dhpf.pipelines.outputs.exports.shared_keypoints import shared_keypoints


def made_up_rows(num_images: int) -> list[PairRow]:
    """All pairs of some images, with points on and about a coarse grid, some left of and above the image."""
    rng = np.random.default_rng(0)
    size = np.array([64, 48], np.int32)
    points = rng.uniform(-3, 20, (num_images, num_images, 2, 30, 2)).astype(np.float32)
    scores = np.linspace(1, 0, 30, dtype=np.float32)
    return [
        PairRow(f"{i}.jpg", f"{j}.jpg", True, size, size, *points[i, j], scores)
        for i in range(num_images)
        for j in range(num_images)
    ]


@pytest.mark.parametrize("most", [1, 10**6])
def test_keypoints_are_the_same_however_few_are_in_memory(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_KEYPOINTS", most)
    rows = made_up_rows(6)
    with shared_keypoints(tmp_path / "scratch") as keypoints:
        matches = [(keypoints.numbers(row), *keypoints.matches(row)) for row in rows]
        images = {image.number: image for image in keypoints.images()}
    assert not list(tmp_path.iterdir())
    assert [image.name for image in images.values()] == [f"{i}.jpg" for i in range(6)]
    for image in images.values():
        assert len(np.unique(image.points, axis=0)) == len(image.points), "each keypoint once"
    for row, ((source, target), found, confidence) in zip(rows, matches, strict=True):
        places = np.searchsorted(-row.confidence, -confidence)
        for image, ids, points in ((source, found[:, 0], row.source_points), (target, found[:, 1], row.target_points)):
            assert np.abs(images[image].points[ids] - points[places]).max() <= 0.5
            assert len(set(ids.tolist())) == len(ids), "no keypoint in two matches of a pair"
        assert found[0].tolist() and confidence[0] == row.confidence[0], "the most confident match stays"
