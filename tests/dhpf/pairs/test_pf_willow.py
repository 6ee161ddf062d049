from pathlib import Path

import pytest

from dhpf.errors import InputError
from dhpf.images import ImageError, decode_image
from dhpf.pairs.pf_willow import PFWillow
from dhpf.records import PairRecord, Rejection

HEADER = ",".join(["imageA", "imageB", *(f"{a}{k}" for a in ("XA", "YA", "XB", "YB") for k in range(1, 11))])


def test_rows(tmp_path: Path) -> None:
    numbers = ",".join(str(n) for n in range(40))
    broken = numbers.replace("39", "x")
    rows = [f"PF-WILLOW/car(G)/a.png,PF-WILLOW/car(G)/b.png,{n}" for n in (numbers, broken)]
    (tmp_path / "test_pairs.csv").write_text("\n".join([HEADER, *rows]))
    good, bad = PFWillow(str(tmp_path)).pairs("test")
    assert isinstance(good, PairRecord)
    assert (good.category, good.source) == ("car(G)", "car(G)/a.png")
    assert good.source_keypoints is not None and good.source_keypoints[1].tolist() == [1, 11]
    assert good.target_keypoints is not None and good.target_keypoints[9].tolist() == [29, 39]
    assert isinstance(bad, Rejection) and "row 2" in bad.reason


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "test_pairs.csv").write_text(HEADER.replace("YB10", "YB11") + "\n")
    with pytest.raises(InputError, match="no column 'YB10'; did you mean"):
        list(PFWillow(str(tmp_path)).pairs("test"))


def test_a_missing_folder_and_split_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        list(PFWillow(str(tmp_path / "none")).pairs("test"))
    with pytest.raises(InputError, match="no split 'val'; choices: test"):
        list(PFWillow(str(tmp_path)).pairs("val"))


def test_ids_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    (tmp_path / "root" / "link.png").symlink_to(tmp_path / "secret.png")
    source = PFWillow(str(tmp_path / "root"))
    for name in ("../secret.png", str(tmp_path / "secret.png"), "link.png", "a\0b"):
        with pytest.raises(ImageError):
            source.read(name)


def test_the_real_benchmark(data_folder: Path) -> None:
    source = PFWillow(str(data_folder / "PF-WILLOW"))
    pairs = [p for p in source.pairs("test") if isinstance(p, PairRecord)]
    assert len(pairs) == 900
    assert len({p.category for p in pairs}) == 10
    assert all(p.source_keypoints is not None and len(p.source_keypoints) == 10 for p in pairs)
    assert decode_image(source.read(pairs[0].source), "x").shape[2] == 3
