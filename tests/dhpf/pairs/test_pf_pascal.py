from pathlib import Path

import numpy as np
import pytest
import scipy.io

from dhpf.pairs.pf_pascal import PFPascal
from dhpf.records import PairRecord, Rejection


@pytest.fixture
def root(tmp_path: Path) -> Path:
    annotations = tmp_path / "Annotations" / "cat"
    annotations.mkdir(parents=True)
    nan = np.nan
    scipy.io.savemat(annotations / "a.mat", {"kps": [[1, 2], [nan, nan], [5, 6], [7, 8]]})
    scipy.io.savemat(annotations / "b.mat", {"kps": [[10, 20], [30, 40], [nan, nan], [70, 80]]})
    prefix = "PF-dataset-PASCAL/JPEGImages/"
    (tmp_path / "trn_pairs.csv").write_text(
        "source_image,target_image,class,flip\n"
        f"{prefix}a.jpg,{prefix}b.jpg,8,0\n{prefix}a.jpg,{prefix}b.jpg,8,1\n{prefix}a.jpg,{prefix}c.jpg,8,0\n"
        f"{prefix}a.jpg,{prefix}b.jpg,21,0\n"
    )
    (tmp_path / "test_pairs.csv").write_text(
        f"source_image,target_image,class,XA,YA,XB,YB\n{prefix}a.jpg,{prefix}b.jpg,8,1;2,3;4,5;6,7;8\n"
    )
    return tmp_path


def test_only_points_of_both_images_count(root: Path) -> None:
    plain, flipped, missing, unknown = PFPascal(str(root)).pairs("train")
    assert isinstance(plain, PairRecord) and isinstance(flipped, PairRecord)
    assert plain.category == "cat"
    assert plain.source_keypoints is not None and plain.source_keypoints.tolist() == [[1, 2], [7, 8]]
    assert plain.target_keypoints is not None and plain.target_keypoints.tolist() == [[10, 20], [70, 80]]
    assert (plain.mirrored, flipped.mirrored) == (False, True)
    assert isinstance(missing, Rejection) and "c.mat: no such file" in missing.reason
    assert isinstance(unknown, Rejection) and "class 21" in unknown.reason


def test_points_of_the_list_come_first(root: Path) -> None:
    (pair,) = PFPascal(str(root)).pairs("test")
    assert isinstance(pair, PairRecord) and pair.target_keypoints is not None
    assert pair.target_keypoints.tolist() == [[5, 7], [6, 8]]


def test_the_real_sample(data_folder: Path) -> None:
    source = PFPascal(str(data_folder / "PF-PASCAL"))
    counts = {split: [type(p) for p in source.pairs(split)] for split in source.splits}
    assert {split: len(types) for split, types in counts.items()} == {"train": 628, "val": 65, "test": 65}
    assert all(kind is PairRecord for types in counts.values() for kind in types)
    assert any(p.mirrored for p in source.pairs("train") if isinstance(p, PairRecord))


@pytest.mark.parametrize(
    ("flip", "mirrored"), [("1", True), ("1.0", True), ("True", True), ("0", False), ("0.0", False), ("", False)]
)
def test_a_flag_is_read_however_it_is_written(root: Path, flip: str, mirrored: bool) -> None:
    (root / "trn_pairs.csv").write_text(f"source_image,target_image,class,flip\na.jpg,b.jpg,8,{flip}\n")
    (pair,) = PFPascal(str(root)).pairs("train")
    assert isinstance(pair, PairRecord) and pair.mirrored is mirrored


def test_a_flag_that_says_nothing_is_refused(root: Path) -> None:
    (root / "trn_pairs.csv").write_text("source_image,target_image,class,flip\na.jpg,b.jpg,8,maybe\n")
    (pair,) = PFPascal(str(root)).pairs("train")
    assert isinstance(pair, Rejection) and "flip is 'maybe', expected 0 or 1" in pair.reason


def test_a_damaged_annotation_costs_its_pairs_alone(root: Path) -> None:
    (root / "Annotations" / "cat" / "a.mat").write_bytes(b"no annotation")
    pairs = list(PFPascal(str(root)).pairs("train"))
    assert all(isinstance(pair, Rejection) for pair in pairs) and "a.mat: no readable keypoints" in str(pairs[0])
    assert isinstance(next(PFPascal(str(root)).pairs("test")), PairRecord)
