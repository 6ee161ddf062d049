from pathlib import Path

import h5py
import numpy as np
import pytest

from dhpf.errors import InputError
from dhpf.pipelines.outputs.exports import export
from dhpf.pipelines.outputs.exports.hdf5 import SPACE, TAKEN
from tests.pipelines.outputs.exports.conftest import A, B, C, row, written

Matches = list[tuple[list[float], list[float], float]]


def matches_as_hloc_reads_them(folder: Path, source: str, target: str) -> Matches:
    """The points of a pair's matches and their scores, looked up by hloc's documented layout."""
    with h5py.File(folder / "matches.h5") as matches, h5py.File(folder / "features.h5") as features:
        pair = matches[f"{source.replace('/', '-')}/{target.replace('/', '-')}"]
        sources, targets = (features[name]["keypoints"][:] for name in (source, target))
        found = [(i, j, s) for i, (j, s) in enumerate(zip(pair["matches0"], pair["matching_scores0"], strict=True))]
        return [(sources[i].tolist(), targets[j].tolist(), float(s)) for i, j, s in found if j != -1]


def test_points_become_keypoints_that_pairs_share(run: Path, tmp_path: Path) -> None:
    tally = export(str(run), "hdf5", tmp_path / "out")
    assert matches_as_hloc_reads_them(tmp_path / "out", A, B) == [
        ([9.5, 19.5], [29.5, 39.5], pytest.approx(0.9, abs=1e-3)),
        ([4.5, 5.5], [6.5, 7.5], pytest.approx(0.8, abs=1e-3)),
    ]
    assert matches_as_hloc_reads_them(tmp_path / "out", A, C) == [
        ([9.5, 19.5], [0.5, 1.5], pytest.approx(0.7, abs=1e-3)),  # the less confident match of the keypoint is gone
        ([-0.5, -0.5], [-0.5, -0.5], 0.5),
    ]
    assert matches_as_hloc_reads_them(tmp_path / "out", B, A) == [([29.5, 39.5], [4.5, 5.5], pytest.approx(0.4, 1e-3))]
    assert tally.num_matches == 6 and tally.left_out == {"not matched": 1}


def test_the_types_are_hlocs(run: Path, tmp_path: Path) -> None:
    export(str(run), "hdf5", tmp_path / "out")
    with h5py.File(tmp_path / "out" / "matches.h5") as matches, h5py.File(tmp_path / "out" / "features.h5") as features:
        pair = matches[A.replace("/", "-")][B.replace("/", "-")]
        assert pair["matches0"].dtype == np.int32 and pair["matching_scores0"].dtype == np.float16
        assert features[A]["keypoints"].dtype == np.float32 and features[A]["image_size"][:].tolist() == [640, 480]
        assert features["lost.jpg"]["keypoints"].shape == (0, 2)
    lines = (tmp_path / "out" / "pairs.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split() for line in lines] == [[A, B], [A, C], [B, A], [B, C]]


def test_pairs_that_hloc_cannot_name_are_counted(tmp_path: Path) -> None:
    match = [(1.0, 2.0, 3.0, 4.0, 0.5)]
    names = [("a/b.jpg", "c.jpg"), ("a-b.jpg", "c.jpg"), ("a/b.jpg", "c.jpg"), ("a b.jpg", "c.jpg")]
    written(tmp_path / "run", [[row(number, *pair, match) for number, pair in enumerate(names)]])
    tally = export(str(tmp_path / "run"), "hdf5", tmp_path / "out")
    assert tally.left_out == {TAKEN: 2, SPACE: 1} and tally.num_written == 1


def test_an_image_whose_name_is_another_ones_folder_is_refused(tmp_path: Path) -> None:
    match = [(1.0, 2.0, 3.0, 4.0, 0.5)]
    written(tmp_path / "run", [[row(0, "a", "a/keypoints", match)]])
    with pytest.raises(InputError, match="image 'a/keypoints': HDF5 cannot tell its name"):
        export(str(tmp_path / "run"), "hdf5", tmp_path / "out")
