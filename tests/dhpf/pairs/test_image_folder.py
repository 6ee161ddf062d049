from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dhpf.errors import InputError
from dhpf.pairs import open_pair_source
from dhpf.pairs.image_folder import ImageFolder
from dhpf.pairs.image_stores import list_images
from dhpf.planning.select import PairList, WithinFolders
from dhpf.records import PairRecord, Rejection

ODD = 'it\'s "odd".v2 ü.JPG'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ("a.jpg", "x/b.png", f"x/{ODD}", "x/c.png", "y/d.webp", ".hidden/e.png", "notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    (tmp_path / "outside.png").write_bytes(b"secret")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    return folder


def names(source: ImageFolder) -> list[tuple[str, str, str]]:
    return [(p.source, p.target, p.category) for p in source.pairs("all") if isinstance(p, PairRecord)]


def test_images_are_found_whatever_they_are_called(root: Path) -> None:
    assert list_images(str(root), "x").images == tuple(sorted(["a.jpg", "x/b.png", f"x/{ODD}", "x/c.png", "y/d.webp"]))
    assert ImageFolder(str(root)).read(f"x/{ODD}") == f"x/{ODD}".encode()


def test_all_pairs_and_pairs_within_folders(root: Path) -> None:
    assert len(names(ImageFolder(str(root)))) == 10
    within = names(ImageFolder(str(root), WithinFolders()))
    assert len(within) == 3
    assert {category for _, _, category in within} == {"x"}
    ids = [p.pair_id for p in ImageFolder(str(root)).pairs("all")]
    assert len(set(ids)) == 10


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_pair_list(root: Path, tmp_path: Path, kind: str) -> None:
    rows = [
        ("a.jpg", "x/b.png", "1,2;3,4"),
        ("x/b.png", "x/b.png", ""),
        ("a.jpg", "x/b.png", ""),
        ("a.jpg", "gone.png", ""),
        ("a.jpg", "x/c.png", "1,2;3"),
    ]
    path = tmp_path / f"pairs.{kind}"
    if kind == "csv":
        path.write_text("source,target,source_points\n" + "\n".join(f'{s},{t},"{p}"' for s, t, p in rows) + "\n")
    else:
        columns = dict(zip(("source", "target", "source_points"), zip(*rows, strict=True), strict=True))
        pq.write_table(pa.table({k: list(v) for k, v in columns.items()}), path)
    first, *rejected = ImageFolder(str(root), PairList(str(path))).pairs("all")
    assert isinstance(first, PairRecord) and first.source_keypoints is not None
    assert first.source_keypoints.tolist() == [[1, 2], [3, 4]]
    reasons = [r.reason for r in rejected if isinstance(r, Rejection)]
    assert len(reasons) == 4
    assert "row 2: names the same image 'x/b.png' twice" in reasons[0]
    assert "already on row 1" in reasons[1]
    assert "'gone.png' is not in the folder" in reasons[2]
    assert "x,y;x,y" in reasons[3]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_missing_column_is_named_with_the_nearest(root: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"pairs.{kind}"
    if kind == "csv":
        path.write_text("sorce,target\na,b\n")
    else:
        pq.write_table(pa.table({"sorce": ["a"], "target": ["b"]}), path)
    with pytest.raises(InputError, match="no column 'source'; did you mean 'sorce'"):
        list(ImageFolder(str(root), PairList(str(path))).pairs("all"))


def test_damaged_and_missing_lists(root: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.parquet").write_bytes(b"PAR1junk")
    for name, reason in (("junk.parquet", "not a readable Parquet"), ("none.csv", "no such file")):
        with pytest.raises(InputError, match=reason):
            list(ImageFolder(str(root), PairList(str(tmp_path / name))).pairs("all"))


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image"):
        list(ImageFolder(str(tmp_path)).pairs("all"))


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("image_foldr", {}, "did you mean 'image_folder'"),
        ("image_folder", {"root": "x", "selct": "all"}, "unknown option 'selct'; did you mean 'select'"),
        (
            "image_folder",
            {"root": "x", "select": "within_folders"},
            "unknown value 'within_folders'; did you mean",
        ),
        (
            "image_folder",
            {"root": "x", "pairing": "within_folders"},
            "pairing is called select now, as in select",
        ),
        ("pf_pascal", {"root": "x", "pairing": "all"}, "pf_pascal: unknown option 'pairing'"),
        ("image_folder", {"root": 3}, "root is 3, expected str"),
        ("image_folder", {}, "option root is missing"),
        ("image_folder", {"root": "x", "select": "list"}, "image_folder: pair_list: is missing; select 'list'"),
    ],
)
def test_wrong_options(kind: str, options: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        open_pair_source(kind, options)
