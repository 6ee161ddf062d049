"""The command `dhpf pairs`, run in this process, and the tables that it writes."""

import itertools
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import skimage.data
from PIL import Image

from dhpf.config import ModelConfig
from dhpf.model.engines.choose import choose_engine
from dhpf.pipelines.__main__ import main
from dhpf.pipelines.config import CollectionConfig, Resources
from dhpf.pipelines.inputs import pair_table
from dhpf.pipelines.inputs.collection import open_collection
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching.block_matching import match_block
from dhpf.pipelines.matching.matched_pair import MatchedPair
from dhpf.pipelines.outputs.tables import table_of
from dhpf.pipelines.stages.match import CorrespondenceRows
from dhpf.pipelines.workflow_file import load_workflow
from dhpf.planning.blocks import block_limits, images_within
from dhpf.planning.select import SELECT_OPTIONS, pair_select

IMAGES = ["a.jpg", "cats/1.jpg", "cats/2.jpg", "cats/3.jpg", "dogs/1.jpg", "dogs/2.jpg"]
JOINED = ["number", "pair_id", "source", "target"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in IMAGES:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"")
    return tmp_path / "photos"


def dhpf(photos: Path, *arguments: str) -> int:
    return main(["pairs", str(photos), *arguments])


def table(path: Path) -> list[tuple[str, str]]:
    rows = pq.read_table(path, page_checksum_verification=True)
    assert sorted(rows["number"].to_pylist()) == list(range(len(rows)))
    return sorted(zip(rows["source"].to_pylist(), rows["target"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--select", "all"], list(itertools.combinations(IMAGES, 2))),
        (
            ["--select", "within-folders"],
            [*itertools.combinations(IMAGES[1:4], 2), ("dogs/1.jpg", "dogs/2.jpg")],
        ),
        (
            ["--select", "reference", "--reference", "cats/2.jpg"],
            [("cats/2.jpg", i) for i in IMAGES if i != "cats/2.jpg"],
        ),
        (["--select", "neighbours", "--reach", "1"], list(itertools.pairwise(IMAGES))),
    ],
)
def test_tables_of_every_selection(photos: Path, tmp_path: Path, arguments: list[str], expected: list[object]) -> None:
    output = tmp_path / "new" / "pairs.parquet"
    assert dhpf(photos, *arguments, "-o", str(output), "--max-images", "4") == 0
    assert table(output) == expected
    assert [path.name for path in output.parent.iterdir()] == ["pairs.parquet"]


def test_a_list_comes_back_as_a_list(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = tmp_path / "list.csv"
    given.write_text(
        'source,category,target,source_points\na.jpg,cat,cats/1.jpg,"1,2;3,4"\ngone.jpg,,a.jpg,\ncats/1.jpg,,a.jpg,\n'
    )
    output, again = tmp_path / "pairs.parquet", tmp_path / "again.parquet"
    assert dhpf(photos, "--select", "list", "--list", str(given), "-o", str(output)) == 3
    rows = pq.read_table(output, page_checksum_verification=True).to_pylist()
    assert sorted((row["number"], row["source"], row["category"], row["source_points"]) for row in rows) == [
        (0, "a.jpg", "cat", [[1, 2], [3, 4]]),
        (2, "cats/1.jpg", "", None),
    ]
    printed = capsys.readouterr()
    assert "6 images, 2 pairs" in printed.out
    assert "1 row rejected; the first:" in printed.err and "row 2: image 'gone.jpg' is not in" in printed.err
    assert pq.read_table(tmp_path / "pairs.rejects.parquet")["pair_id"].to_pylist() == ["000000002"]
    assert dhpf(photos, "--select", "list", "--list", str(output), "-o", str(again)) == 0
    assert pq.read_table(again).drop_columns("number") == pq.read_table(output).drop_columns("number")
    assert not list(tmp_path.glob(".*"))


def test_a_list_of_rejects_only(photos: Path, tmp_path: Path) -> None:
    given = tmp_path / "list.csv"
    given.write_text("source,target\na.jpg,a.jpg\n")
    assert dhpf(photos, "--select", "list", "--list", str(given), "-o", str(tmp_path / "pairs.parquet")) == 3
    assert table(tmp_path / "pairs.parquet") == []


def test_a_dry_run_counts_and_writes_nothing(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert dhpf(photos, "--dry-run", "--max-images", "4") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("6 images, 15 pairs\n3 blocks, 15 pairs, 12 images to read")
    assert "0.8 images described per pair" in printed
    assert sorted(tmp_path.rglob("*")) == before


def test_limits_are_printed_for_programs(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dhpf(photos, "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["limits"] == {"max_images": 48, "max_pairs": 24}


def test_many_pairs_are_written_in_row_groups(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_table, "ROW_GROUP", 4)
    assert dhpf(photos, "-o", str(tmp_path / "p.parquet"), "--max-pairs", "2") == 0
    assert pq.ParquetFile(tmp_path / "p.parquet").num_row_groups == 4
    assert table(tmp_path / "p.parquet") == list(itertools.combinations(IMAGES, 2))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--select", "al"], "select: unknown value 'al'; did you mean 'all'"),
        (["--select", "list"], "pair_list: is missing; select 'list' needs it"),
        (["--list", "x.csv"], "pair_list: 'x.csv' with select 'all'"),
        (["--select", "list", "--list", "x.csv", "--reach", "2"], "reach: 2 with select 'list'"),
        (["--select", "list", "--list", "none.csv"], "pair list none.csv: no such file"),
        (["--select", "reference", "--reference", "cats/9.jpg"], "no image 'cats/9.jpg'"),
        (["--max-images", "1"], "max_images: 1 must be at least 2"),
        (["--max-pairs", "0"], "max_pairs: 0 must be at least 1"),
    ],
)
def test_what_cannot_be_done(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    assert dhpf(photos, *arguments, "-o", str(tmp_path / "p.parquet")) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "p.parquet").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["new/p.csv", "new/p", "new/p.parquet.gz"])
def test_a_table_is_called_what_it_is(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert dhpf(photos, "-o", str(tmp_path / name)) == 2
    assert f"--output: '{tmp_path / name}' must end in .parquet" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_files_that_are_there_stay(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("p.parquet", "p.rejects.parquet"):
        (tmp_path / name).write_text("mine")
        assert dhpf(photos, "-o", str(tmp_path / "p.parquet")) == 2
        assert f"{name} is there already" in capsys.readouterr().err
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()


def test_a_file_that_appears_meanwhile_stays(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair_table, "require_new_table", lambda output: None)
    (tmp_path / "p.parquet").write_text("mine")
    assert dhpf(photos, "-o", str(tmp_path / "p.parquet")) == 2
    assert "p.parquet is there already" in capsys.readouterr().err
    assert (tmp_path / "p.parquet").read_text() == "mine"


def test_folders_without_pairs(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pairs", str(tmp_path / "none"), "--dry-run"]) == 2
    assert "no folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["pairs", str(tmp_path / "empty"), "--dry-run"]) == 2
    assert "holds no image" in capsys.readouterr().err
    (tmp_path / "empty" / "one.jpg").write_bytes(b"")
    assert main(["pairs", str(tmp_path / "empty"), "--dry-run"]) == 2
    assert "select all: no pair among the 1 images" in capsys.readouterr().err
    assert dhpf(photos) == 2
    assert "--output: is missing" in capsys.readouterr().err


def test_a_file_name_that_is_not_text(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / os.fsdecode(b"\xff.jpg")).write_bytes(b"")
    assert dhpf(photos, "--dry-run") == 2
    assert "is not UTF-8; rename the file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("select", "limits"),
    [
        ("all", (4, 3)),
        ("within-folders", (4, 3)),
        ("list", (4, 3)),
        ("all", (None, None)),
        ("within-folders", (None, None)),
        ("neighbours", (None, None)),
    ],
)
def test_pairs_and_their_correspondences_have_the_same_numbers(
    photos: Path, tmp_path: Path, select: str, limits: tuple[int | None, int | None]
) -> None:
    max_images, max_pairs = limits
    # So many that a block of the match stage does not hold all pairs, if nobody gives it a limit.
    more = [] if max_pairs else [f"cats/{number}.jpg" for number in range(4, 9)]
    for number, name in enumerate([*IMAGES, *more]):
        Image.fromarray(skimage.data.chelsea()[8 * number : 8 * number + 100, :100]).save(photos / name)
    rows = [("cats/2.jpg", "a.jpg"), ("gone.jpg", "a.jpg"), ("dogs/1.jpg", "a.jpg"), ("a.jpg", "cats/2.jpg")]
    rows += [("dogs/1.jpg", "dogs/2.jpg"), ("cats/1.jpg", "cats/3.jpg")]
    (tmp_path / "list.csv").write_text("source,target\n" + "".join(f"{s},{t}\n" for s, t in rows))
    given: dict[str, dict[str, str | int]] = {
        "list": {"pair_list": str(tmp_path / "list.csv")},
        "neighbours": {"reach": 5},
    }
    chosen = pair_select(select, given.get(select, {}))
    options = [
        str(word) for name, value in given.get(select, {}).items() for word in (SELECT_OPTIONS[name].flag, value)
    ]
    if max_pairs:
        options += ["--max-images", str(max_images), "--max-pairs", str(max_pairs)]
    assert dhpf(photos, "--select", select, *options, "-o", str(tmp_path / "p.parquet")) in (0, 3)

    config = CollectionConfig(str(photos), chosen, max_images or 1000, max_pairs)
    network = ModelSource(ModelConfig(selection="fixed", layers=(11,))).load(Resources())
    row_of = CorrespondenceRows(1, False, "m", "c")
    with open_collection("photos", config, 10**6) as collection:
        jobs = list(collection.jobs(set(collection.tasks)))
        assert len(jobs) > 1
        pairs = [p for j in jobs for p in match_block(network, choose_engine(), j.open(), row_of)]
    matched = table_of([row_of(pair) for pair in pairs if isinstance(pair, MatchedPair)], row_of.schema)
    joined = pq.read_table(tmp_path / "p.parquet").join(matched.select(JOINED), "number", right_suffix=" matched")
    assert len(joined) == len(matched) == len(pairs) > 1
    for row in joined.to_pylist():
        assert (row["source"], row["target"]) == (row["source matched"], row["target matched"])
        assert int(row["pair_id"]) == row["number"] + 1
        assert select != "list" or rows[row["number"]] == (row["source"], row["target"])


def test_match_folders_model_leaves_blocks_to_their_pairs() -> None:
    """So that `dhpf pairs`, which knows no model, plans the same blocks."""
    workflow = load_workflow(Path(__file__).parents[3] / "workflows.yaml", "match-folder", [], Path())
    assert workflow.match is not None
    memory = workflow.match.collections["photos"].feature_memory_mb * 10**6
    bytes_per_image = ModelSource(workflow.model).bytes_per_image(workflow.match.features)
    assert images_within(memory, bytes_per_image) >= block_limits(None).max_images
