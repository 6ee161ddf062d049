from pathlib import Path

import numpy as np

from dhpf.pipelines.outputs.exports import export
from tests.pipelines.outputs.exports.conftest import ROWS, row, written


def test_each_pair_is_a_file_that_numpy_reads_without_pickle(run: Path, tmp_path: Path) -> None:
    export(str(run), "npz", tmp_path / "out")
    for number, expected in enumerate(ROWS):
        with np.load(tmp_path / "out" / "000000" / f"{number:09}.npz", allow_pickle=False) as found:
            assert str(found["source"]) == expected["source"] and str(found["target"]) == expected["target"]
            assert str(found["status"]) == expected["status"] and int(found["number"]) == number
            if expected["source_points"] is None:
                assert "source_points" not in found.files and "score" not in found.files
            else:
                np.testing.assert_array_equal(found["target_points"], np.float32(expected["target_points"]))
                assert found["confidence"].dtype == np.float32 and found["layers"].tolist() == [1, 2, 5]
    with np.load(tmp_path / "out" / "000000" / "000000004.npz") as found:
        assert found["transferred_valid"].tolist() == [True, False] and found["given_points"].shape == (2, 2)


def test_pairs_are_a_thousand_to_a_folder(tmp_path: Path) -> None:
    written(tmp_path / "run", [[row(number, "a", "b", [(1, 2, 3, 4, 0.5)]) for number in (999, 1000)]])
    export(str(tmp_path / "run"), "npz", tmp_path / "out")
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.npz"))
    assert files == ["000000/000000999.npz", "000001/000001000.npz"]
