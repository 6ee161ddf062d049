import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dhpf.errors import InputError
from dhpf.pairs import pair_list
from dhpf.pairs.image_folder import ImageFolder
from dhpf.pairs.pair_list import PairListPlan, plan_pair_list, read_rows
from dhpf.planning.blocks import read_block
from dhpf.planning.select import PairList
from dhpf.records import PairRecord, Rejection
from dhpf.storage import location_of

IMAGES = ["a.jpg", "b.jpg", "x/c.jpg", "x/d.jpg"]


def written(folder: Path, kind: str, columns: dict[str, list[Any]]) -> Path:
    path = folder / f"list.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table(columns), path)
    else:
        rows = [",".join(columns), *(",".join(f'"{v}"' for v in row) for row in zip(*columns.values(), strict=True))]
        path.write_text("\n".join(rows) + "\n")
    return path


def planned(path: Path, folder: Path, images: list[str] = IMAGES) -> PairListPlan:
    return plan_pair_list(path, images, folder, max_images=4, max_pairs=100)


def rows_of(plan: PairListPlan) -> list[dict[str, Any]]:
    place = location_of(plan.listed.path)
    return [row for block in plan.listed.blocks() for row in read_block(place, block).to_pylist()]


def rows(plan: PairListPlan, images: list[str] = IMAGES) -> list[tuple[int, str, str]]:
    found = rows_of(plan)
    return sorted((row["number"], images[row["source"]], images[row["target"]]) for row in found)


def reasons(plan: PairListPlan) -> list[str]:
    table = pq.read_table(plan.rejects, page_checksum_verification=True)
    assert table.column_names == ["pair_id", "source", "target", "reason"]
    assert len(table) == plan.num_rejected
    return sorted(row["reason"].partition("list.")[2] for row in table.to_pylist())


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_names_match_however_their_accents_are_written(tmp_path: Path, kind: str) -> None:
    composed, decomposed = "caf\u00e9.jpg", "nai\u0308ve.jpg"
    columns = {"source": ["cafe\u0301.jpg", "a.jpg"], "target": ["na\u00efve.jpg", composed]}
    path, images = written(tmp_path, kind, columns), ["a.jpg", composed, decomposed]
    plan = planned(path, tmp_path / "plan", images)
    assert rows(plan, images) == [(0, composed, decomposed), (1, "a.jpg", composed)]
    for image in images:
        (tmp_path / image).touch()
    found = [(p.source, p.target) for p in ImageFolder(str(tmp_path), PairList(str(path))).pairs("all")]
    assert found == [(composed, decomposed), ("a.jpg", composed)]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("batch_rows", [2, 1000])
def test_rows_in_are_pairs_planned_and_rows_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, batch_rows: int
) -> None:
    monkeypatch.setattr(pair_list, "BATCH_ROWS", batch_rows)
    sources = ["a.jpg", "b.jpg", "a.jpg", "x/c.jpg", "gone.jpg", "a.jpg", "b.jpg", "", "a.jpg"]
    targets = ["b.jpg", "b.jpg", "b.jpg", "x/d.jpg", "gone.jpg", "x/c.JPG", "a.jpg", "a.jpg", "b.jpg"]
    plan = planned(written(tmp_path, kind, {"source": sources, "target": targets}), tmp_path / "plan")
    assert rows(plan) == [(0, "a.jpg", "b.jpg"), (3, "x/c.jpg", "x/d.jpg"), (6, "b.jpg", "a.jpg")]
    assert reasons(plan) == [
        f"{kind} row 2: names the same image 'b.jpg' twice",
        f"{kind} row 3: the pair is already on row 1",
        f"{kind} row 5: image 'gone.jpg' is not in the folder",
        f"{kind} row 6: image 'x/c.JPG' is not in the folder",
        f"{kind} row 8: image '' is not in the folder",
        f"{kind} row 9: the pair is already on row 1",
    ]
    assert plan.first_rejection is not None and "row 2" in plan.first_rejection


def test_rows_without_a_name_and_images_whose_name_is_no_text(tmp_path: Path) -> None:
    images = ["a.jpg", os.fsdecode(b"b\xff.jpg"), "c.jpg"]
    columns = {"source": ["a.jpg", None, "a.jpg"], "target": ["c.jpg", "c.jpg", None]}
    plan = planned(written(tmp_path, "parquet", columns), tmp_path / "plan", images)
    assert rows(plan, images) == [(0, "a.jpg", "c.jpg")]
    assert all("image '' is not in the folder" in reason for reason in reasons(plan))


@pytest.mark.parametrize(
    "points",
    [
        ["1,2;3,4", "", "1,2;3", "1,nan", "x"],
        [[[1, 2], [3, 4]], None, [[1.0, 2.0], [3.0]], [[1.0, float("nan")]], [[1.0, None]]],
        [[[1, 2], [3, 4]], [], [[1, 2], None], [[1, 1e300]], [[1, float("inf")]]],
    ],
    ids=["text", "lists", "more-lists"],
)
def test_points_are_read_and_bad_ones_rejected(tmp_path: Path, points: list[Any]) -> None:
    others = ["b.jpg", "x/c.jpg", "x/d.jpg", "b.jpg", "x/c.jpg"]
    columns = {"source": ["a.jpg"] * 3 + ["x/d.jpg"] * 2, "target": others, "source_points": points}
    plan = planned(written(tmp_path, "parquet", columns), tmp_path / "plan")
    found = rows_of(plan)
    assert {row["number"]: row["points"] or None for row in found} == {0: [[1, 2], [3, 4]], 1: None}
    assert plan.num_rejected == 3
    assert len(reasons(plan)) == 3


def test_good_points_of_a_list_are_taken_over_whole(tmp_path: Path) -> None:
    points = [[[1.5, 2.5]], None, []]
    columns = {"source": ["a.jpg"] * 3, "target": IMAGES[1:], "source_points": points}
    plan = planned(written(tmp_path, "parquet", columns), tmp_path / "plan")
    found = rows_of(plan)
    assert [row["points"] for row in sorted(found, key=lambda row: row["number"])] == points


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_boxes_are_read_and_bad_ones_rejected(tmp_path: Path, kind: str) -> None:
    boxes = ["1,2,30,40.5", "", "30,2,1,40", "1,2,3", "a,2,3,4"]
    given: list[Any] = boxes if kind == "csv" else [[1, 2, 30, 40.5], None, [30, 2, 1, 40], [1, 2, 3], [1, 2, 3, None]]
    pairs = [(s, t) for s in IMAGES for t in IMAGES if s != t][: len(boxes)]
    columns = {"source": [s for s, _ in pairs], "target": [t for _, t in pairs], "target_box": given}
    path = written(tmp_path, kind, columns)
    plan = planned(path, tmp_path / "out")
    assert sorted((row["target_box"] for row in rows_of(plan)), key=str) == [None, [1, 2, 30, 40.5]]
    sentence = "a box is written x0,y0,x1,y1 in pixels, with x0 < x1 and y0 < y1"
    named = {int(reason.split(" row ")[1].split(":")[0]): reason for reason in reasons(plan)}
    assert named.keys() == {3, 4, 5} and all(reason.endswith(sentence) for reason in named.values())
    assert ": target_box " in named[3]


def test_the_image_folder_takes_and_rejects_the_same_rows(tmp_path: Path) -> None:
    for name in IMAGES:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"")
    drawn = random.Random(0)
    choices = [*IMAGES, "gone.jpg", ""]
    columns = {side: drawn.choices(choices, k=60) for side in ("source", "target")}
    columns["source_points"] = drawn.choices(["", "1,2", "1", "nan,3"], k=60)
    path = written(tmp_path, "csv", columns)
    plan = planned(path, tmp_path / "plan")
    read = list(ImageFolder(str(tmp_path / "photos"), PairList(str(path))).pairs("all"))
    assert rows(plan) == [(int(p.pair_id) - 1, p.source, p.target) for p in read if isinstance(p, PairRecord)]
    rejected = pq.read_table(plan.rejects, columns=["pair_id"]).column(0).to_pylist()
    assert sorted(rejected) == [r.pair_id for r in read if isinstance(r, Rejection)]
    assert plan.listed.summary(max_images=4, max_pairs=100).num_pairs + plan.num_rejected == 60


def test_lists_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "junk.parquet").write_bytes(b"PAR1junk")
    for name, reason in (("junk.parquet", "not a readable Parquet"), ("none.csv", "no such file")):
        with pytest.raises(InputError, match=reason):
            planned(tmp_path / name, tmp_path / "plan")
    with pytest.raises(InputError, match="no column 'target'; did you mean 'targets'"):
        planned(written(tmp_path, "parquet", {"source": ["a"], "targets": ["b"]}), tmp_path / "plan")
    with pytest.raises(InputError, match=r"column 'source' holds list<.*>, expected text"):
        planned(written(tmp_path, "parquet", {"source": [["a"]], "target": ["b"]}), tmp_path / "plan")
    assert list((tmp_path / "plan").glob(".*")) == []


def test_a_damaged_page_is_noticed(tmp_path: Path) -> None:
    names = [f"{number:06d}.jpg" for number in range(2000)]
    path = tmp_path / "list.parquet"
    table = pa.table({"source": names[:-1], "target": names[1:]})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[data.index(b"000500.jpg")] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="not a readable Parquet"):
        planned(path, tmp_path / "plan", names)


def test_what_has_been_read_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_list, "BATCH_ROWS", 5000)
    names = [f"{number:08x}{number * 7919 % 2**32:08x}.jpg" for number in range(400_000)]
    path = tmp_path / "list.parquet"
    table = pa.table({"source": names[:-1], "target": names[1:]})
    pq.write_table(table, path, compression="none", use_dictionary=False, row_group_size=20_000)
    del table
    before, most = pa.total_allocated_bytes(), 0
    for number, _ in pair_list.read_rows(path):
        if number % 5000 == 0:
            most = max(most, pa.total_allocated_bytes() - before)
    assert most < path.stat().st_size / 4


PEAK = """
import resource, sys
from pathlib import Path
from dhpf.pairs import pair_list
from dhpf.planning import listed_blocks
listed_blocks.SAMPLE_SIZE, listed_blocks.SORTED_BYTES, pair_list.BATCH_ROWS = 100_000, 2_000_000, 20_000
images = [f"img/{number:06d}.jpg" for number in range(int(sys.argv[3]))]
limits = {"max_images": 256, "max_pairs": 10_000}
plan = pair_list.plan_pair_list(Path(sys.argv[1]), images, Path(sys.argv[2]), **limits)
num_rows = plan.listed.summary(**limits).num_pairs + plan.num_rejected
print(num_rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_list(tmp_path: Path) -> None:
    """Ten times the pairs of the same images; with a small sample and small parts, which are what memory holds."""
    num_images, peaks = 20_000, []
    for num_pairs in (300_000, 3_000_000):
        path = tmp_path / "pairs.parquet"
        drawn = np.random.default_rng(0)
        ids = pa.array([f"img/{number:06d}.jpg" for number in range(num_images)])
        schema = pa.schema([("source", pa.string()), ("target", pa.string())])
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for _ in range(num_pairs // 100_000):
                source = drawn.integers(0, num_images, 100_000)
                target = (source + drawn.integers(1, 5000, 100_000)) % num_images
                writer.write_table(pa.table([ids.take(pa.array(source)), ids.take(pa.array(target))], schema=schema))
        command = [sys.executable, "-c", PEAK, str(path), str(tmp_path / "plan"), str(num_images)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        counted, peak = map(int, done.stdout.split())
        assert counted == num_pairs
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 40, peaks  # held whole, the list would be 300 MB


@pytest.mark.parametrize("name", ["pairs-not-utf8.parquet", "pairs-odd-integer.parquet"])
def test_lists_that_failed_are_refused_in_a_sentence(name: str, failed_inputs: Path, tmp_path: Path) -> None:
    path = failed_inputs / name
    with pytest.raises(InputError, match=f"pair list {path}: not a readable Parquet file"):
        list(read_rows(path))
    with pytest.raises(InputError, match=f"pair list {path}: not a readable Parquet file"):
        plan_pair_list(path, ["0.jpg", "1.jpg"], tmp_path, max_images=4, max_pairs=4)


@pytest.mark.parametrize("column", ["source", "target", "category"])
def test_texts_that_are_not_utf8_are_refused(column: str, tmp_path: Path) -> None:
    texts = pa.StringArray.from_buffers(2, *pa.array([b"0.jpg", b"\xff.jpg"]).buffers()[1:])
    columns = {name: pa.array(["0.jpg", "1.jpg"]) for name in ("source", "target", "category")} | {column: texts}
    pq.write_table(pa.table(columns), tmp_path / "pairs.parquet")
    with pytest.raises(InputError, match="not a readable Parquet file .*UTF8"):
        plan_pair_list(tmp_path / "pairs.parquet", ["0.jpg", "1.jpg"], tmp_path / "p", max_images=4, max_pairs=4)


def test_a_parquet_list_whose_names_of_columns_are_no_text_is_said(tmp_path: Path) -> None:
    path = written(tmp_path, "parquet", {"source": ["a.png"], "target": ["b.png"], "remark": ["x"]})
    path.write_bytes(path.read_bytes().replace(b"remark", b"\x80emark"))
    with pytest.raises(InputError, match="not a readable Parquet file"):
        planned(path, tmp_path)
