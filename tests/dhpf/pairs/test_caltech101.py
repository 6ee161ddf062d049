from pathlib import Path

import pytest

from dhpf.errors import InputError
from dhpf.pairs.caltech101 import LISTS, Caltech101
from dhpf.records import PairRecord, Rejection


def test_outlines_by_position(tmp_path: Path) -> None:
    (tmp_path / LISTS[0]).write_text(
        "image A,image B,cls,a,b,c,d\n"
        '101_ObjectCategories/ant/1.jpg,101_ObjectCategories/ant/2.jpg,3,"1,2,3","4,5,6","7,8","9,10"\n'
        '101_ObjectCategories/ant/1.jpg,101_ObjectCategories/ant/2.jpg,3,"1,2,3","4,5","7,8","9,10"\n'
    )
    good, bad = Caltech101(str(tmp_path)).pairs("test")
    assert isinstance(good, PairRecord)
    assert (good.category, good.source) == ("ant", "ant/1.jpg")
    assert good.source_outline is not None and good.source_outline.tolist() == [[1, 4], [2, 5], [3, 6]]
    assert good.target_outline is not None and good.target_outline.tolist() == [[7, 9], [8, 10]]
    assert good.source_keypoints is None
    assert isinstance(bad, Rejection) and "3 x but 2 y" in bad.reason


def test_no_list(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither"):
        list(Caltech101(str(tmp_path)).pairs("test"))


def test_the_real_images(data_folder: Path) -> None:
    pairs = list(Caltech101(str(data_folder / "Caltech-101")).pairs("test"))
    assert len(pairs) == 1515
    assert all(isinstance(p, PairRecord) and p.source_outline is None for p in pairs)


def test_a_list_that_is_no_text_is_refused(tmp_path: Path, failed_inputs: Path) -> None:
    (tmp_path / LISTS[0]).write_bytes((failed_inputs / "caltech-not-utf8.csv").read_bytes())
    with pytest.raises(InputError, match=f"{LISTS[0]}: not a CSV file"):
        list(Caltech101(str(tmp_path)).pairs("test"))
