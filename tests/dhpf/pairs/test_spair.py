import errno
import json
from pathlib import Path
from typing import Any

import pytest

from dhpf.errors import InputError
from dhpf.pairs.spair import SPair, _record
from dhpf.records import PairRecord, Rejection
from dhpf.storage import FileLocation

ANNOTATION = {
    "src_imname": "1.jpg",
    "trg_imname": "2.jpg",
    "category": "cow",
    "src_bndbox": [1, 2, 30, 40],
    "trg_bndbox": [5, 6, 70, 80],
    "src_kps": [[10, 11], [12, 13]],
    "trg_kps": [[20, 21], [22, 23]],
    "kps_ids": ["6", "8"],
    "viewpoint_variation": 1,
    "scale_variation": 2,
    "truncation": 0,
    "occlusion": 1,
}


def test_annotations_with_and_without_colons(tmp_path: Path) -> None:
    (tmp_path / "Layout" / "large").mkdir(parents=True)
    names = ["000001-1-2:cow", "000002-1-2:cow", "000003-1-2:cow", "000004-1-2:cow"]
    (tmp_path / "Layout" / "large" / "trn.txt").write_text("\n".join(names) + "\n")
    folder = tmp_path / "PairAnnotation" / "trn"
    folder.mkdir(parents=True)
    (folder / f"{names[0]}.json").write_text(json.dumps(ANNOTATION))
    (folder / f"{names[1].replace(':', '_')}.json").write_text(json.dumps(ANNOTATION))
    (folder / f"{names[2]}.json").write_text("{}")
    first, second, empty, missing = SPair(str(tmp_path)).pairs("train")
    assert isinstance(first, PairRecord) and isinstance(second, PairRecord)
    assert first.source == "cow/1.jpg"
    assert first.target_box == (5, 6, 70, 80)
    assert first.keypoint_names == ("6", "8")
    assert first.difficulty == {"viewpoint": 1, "scale": 2, "truncation": 0, "occlusion": 1}
    assert isinstance(empty, Rejection) and "category" in empty.reason
    assert isinstance(missing, Rejection) and "no such file" in missing.reason


@pytest.mark.parametrize(
    "annotation",
    [
        b"[" * 100_000,
        b"[]",
        b"7",
        b"\xff",
        json.dumps(ANNOTATION | {"src_kps": [[10, 11, 0], [12, 13, 2]]}).encode(),
        json.dumps(ANNOTATION | {"src_kps": [[10, 11]]}).encode(),
        json.dumps(ANNOTATION | {"src_kps": [[10**400, 11], [1, 1]]}).encode(),
        json.dumps(ANNOTATION | {"src_bndbox": [1, 2, 3]}).encode(),
        json.dumps(ANNOTATION | {"src_bndbox": [1, 2, 3, 10**400]}).encode(),
        json.dumps(ANNOTATION | {"kps_ids": 7}).encode(),
        json.dumps(ANNOTATION | {"truncation": None}).encode(),
        json.dumps(ANNOTATION | {"truncation": float("inf")}).encode(),
    ],
)
def test_a_bad_annotation_costs_its_pair_alone(tmp_path: Path, annotation: bytes) -> None:
    (tmp_path / "Layout" / "large").mkdir(parents=True)
    (tmp_path / "Layout" / "large" / "trn.txt").write_text(f"bad\n{'long' * 100}\nnull\0byte\ngood\n")
    folder = tmp_path / "PairAnnotation" / "trn"
    folder.mkdir(parents=True)
    (folder / "bad.json").write_bytes(annotation)
    (folder / "good.json").write_text(json.dumps(ANNOTATION))
    bad, long, odd, good = SPair(str(tmp_path)).pairs("train")
    assert isinstance(bad, Rejection) and "bad.json: " in bad.reason
    assert all(isinstance(pair, Rejection) and "no such file" in pair.reason for pair in (long, odd))
    assert isinstance(good, PairRecord)


def test_a_store_that_fails_is_not_a_missing_annotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Layout" / "large").mkdir(parents=True)
    (tmp_path / "Layout" / "large" / "trn.txt").write_text("000001-1-2:cow\n")
    find, errors = FileLocation.find, [OSError(errno.EIO, "Input/output error"), InputError("no answer")]

    def failing(place: FileLocation, *limits: Any) -> bytes | None:
        if place.path.suffix == ".json":
            raise errors.pop(0)
        return find(place, *limits)

    monkeypatch.setattr(FileLocation, "find", failing)
    (unread,) = SPair(str(tmp_path)).pairs("train")
    assert isinstance(unread, Rejection) and unread.reason.endswith("000001-1-2:cow.json: Input/output error")
    with pytest.raises(InputError, match="no answer"):
        list(SPair(str(tmp_path)).pairs("train"))


def test_a_third_number_is_said_not_cut_off() -> None:
    annotation = ANNOTATION | {"trg_kps": [[20, 21, 1], [22, 23, 0]]}
    with pytest.raises(ValueError, match=r"^trg_kps must be a list of \[x, y\]$"):
        _record("x", annotation)


def test_files_that_failed_are_rows_with_reasons(failed_inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "Layout" / "large").mkdir(parents=True)
    listing = (failed_inputs / "spair-listing-long-name.txt").read_text()
    (tmp_path / "Layout" / "large" / "trn.txt").write_text(f"nested {listing}")
    (tmp_path / "PairAnnotation" / "trn").mkdir(parents=True)
    (tmp_path / "PairAnnotation" / "trn" / "nested.json").write_bytes(
        (failed_inputs / "spair-nested.json").read_bytes()
    )
    nested, *others = SPair(str(tmp_path)).pairs("train")
    assert isinstance(nested, Rejection) and "RecursionError" in nested.reason
    assert others and all(isinstance(pair, Rejection) for pair in others)


def test_real_files_in_this_layout(data_folder: Path) -> None:
    source = SPair(str(data_folder / "AnimalPose-SPairLayout"))
    counts = {split: sum(isinstance(p, PairRecord) for p in source.pairs(split)) for split in source.splits}
    assert counts == {"train": 993, "val": 200, "test": 185}


def test_the_true_format(data_folder: Path) -> None:
    for path in (data_folder / "SPair-71k-official-samples").glob("0*.json"):
        pair = _record(path.stem, json.loads(path.read_text()))
        assert pair.source_keypoints is not None
        assert len(pair.keypoint_names) == len(pair.source_keypoints)
