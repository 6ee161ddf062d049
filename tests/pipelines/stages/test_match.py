"""The stage's logic without Ray: rows, rejected rows, outputs that are complete; and, slow, whole runs on a cluster."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skimage.data
import torch
from PIL import Image

from dhpf.config import ModelConfig
from dhpf.frame import cell_centres
from dhpf.manifest import CommitRecord
from dhpf.model.transfer import MutualMatches, PairMatch
from dhpf.pipelines.config import CollectionConfig, MatchConfig
from dhpf.pipelines.inputs.block_source import RejectedRows
from dhpf.pipelines.inputs.collection import Collection, open_collection
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching.describing import ImageFacts
from dhpf.pipelines.matching.matched_pair import MatchedPair, common_row
from dhpf.pipelines.matching.measured_costs import MeasuredCosts
from dhpf.pipelines.outputs.store import PlanConflict, StageOutput
from dhpf.pipelines.outputs.tables import CORRESPONDENCES, RANKS, ranked_pairs, table_of
from dhpf.pipelines.outputs.writers import table_file
from dhpf.pipelines.stages.match import (
    CorrespondenceRows,
    MatchResult,
    _keep_rejects,
    cost_lines,
    match,
    num_described,
    plan_lines,
)
from dhpf.planning.select import PairList
from dhpf.records import PairRecord
from dhpf.storage import location_of
from tests.pipelines.stage_outputs import manifest, parts, wait_for

if TYPE_CHECKING:
    from infra.s3_server import Bucket
    from tests.pipelines.conftest import Ended

Run = Callable[..., "Ended"]
CommandLine = Callable[..., list[str]]
DeadlyImage = Callable[[Path, signal.Signals], Callable[[], list[int]]]
KillTree = Callable[[subprocess.Popen[bytes]], None]

MODEL = ModelSource(ModelConfig(selection="fixed", layers=(11,)))
SOURCE, TARGET = ImageFacts((480, 240), "s" * 64), ImageFacts((240, 120), "t" * 64)


def pair_of(record: PairRecord) -> MatchedPair:
    """A matched pair: every cell is found 10 pixels of the frame further right, and two cells are mutual matches."""
    points = cell_centres() + torch.tensor([10.0, 0.0])
    mutual = MutualMatches(cell_centres()[[0, 61]], points[[0, 61]], torch.tensor([0.75, 0.25]))
    match = PairMatch(points, torch.full((3600,), 0.5), mutual)
    return MatchedPair(7, record, SOURCE, TARGET, match, (3, 11), 0.01)


def test_a_row_holds_the_matches_in_original_pixels() -> None:
    record = PairRecord("000000008", "cat", "a", "b")
    row = CorrespondenceRows(5, False, "models:/dhpf/3", "0.1")(pair_of(record))
    [stored] = table_of([row], CORRESPONDENCES).to_pylist()
    assert (stored["number"], stored["status"], stored["layers"]) == (7, "matched", 1 << 3 | 1 << 11)
    first = cell_centres()[0].numpy()
    assert np.allclose(stored["source_points"][0], first * [2, 1])
    assert np.allclose(stored["target_points"][0], (first + [10, 0]) * [1, 0.5])
    assert (stored["confidence"], stored["score"]) == ([0.75, 0.25], 0.5)
    assert stored["flow"] is None and stored["given_points"] is None
    assert (stored["model"], stored["code_version"]) == ("models:/dhpf/3", "0.1")
    limited = CorrespondenceRows(1, False, "m", "c")(pair_of(record))
    assert limited["confidence"] == [0.75] and len(limited["source_points"]) == 1


def test_given_points_are_transferred_and_flow_is_stored_if_asked_for() -> None:
    record = PairRecord("1", "", "a", "b", source_keypoints=np.array([[240, 120]], dtype=np.float32))
    rows = CorrespondenceRows(5, True, "m", "c")
    assert rows.wanted_points(record) is None, "every cell"
    assert CorrespondenceRows(5, False, "m", "c").wanted_points(record) == [record.source_keypoints]
    assert CorrespondenceRows(5, False, "m", "c").wanted_points(PairRecord("1", "", "a", "b")) == []
    [stored] = table_of([rows(pair_of(record))], CORRESPONDENCES).to_pylist()
    assert stored["given_points"] == [[240, 120]] and stored["transferred_valid"] == [True]
    assert np.allclose(stored["transferred_points"], [[130, 60]], atol=1e-3)
    assert np.allclose(stored["flow"], (cell_centres().numpy() + [10, 0]) * [1, 0.5], atol=1e-3)


def test_a_failed_pair_has_its_reason_the_model_and_the_code() -> None:
    broken = ImageFacts(failure="image b: damaged")
    row = CorrespondenceRows(5, False, "m", "c").failed(common_row(2, PairRecord("3", "", "a", "b"), SOURCE, broken))
    [stored] = table_of([row], CORRESPONDENCES).to_pylist()
    assert (stored["status"], stored["model"], stored["score"]) == ("image b: damaged", "m", None)


def part_of(numbers_and_scores: dict[int, float | None]) -> pa.Table:
    """A part of CORRESPONDENCES with these scores; a pair without one failed."""
    rows = CorrespondenceRows(5, False, "m", "c")
    made = []
    for number, score in numbers_and_scores.items():
        record = PairRecord(f"{number + 1:09d}", "", "a", "b")
        if score is None:
            made.append(rows.failed(common_row(number, record, SOURCE, ImageFacts(failure="damaged"))))
        else:
            made.append({**rows(pair_of(record)), "number": number, "score": score})
    return table_of(made, CORRESPONDENCES)


PARTS: list[dict[int, float | None]] = [{0: 0.5, 1: 0.75, 2: None}, {3: 0.625, 4: 0.125}, {5: None}, {6: 0.25}]


@pytest.mark.parametrize("is_old", [False, True])
def test_the_pairs_for_pictures_are_found_without_reading_the_other_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_old: bool
) -> None:
    output = StageOutput(tmp_path)
    tables = list(map(part_of, PARTS))
    commits = [
        output.commit(f"block-{number}", table_file("part", table), {} if is_old else {"scores": ranked_pairs(table)})
        for number, table in enumerate(tables)
    ]
    read: list[str] = []
    whole = StageOutput.read
    monkeypatch.setattr(StageOutput, "read", lambda o, commit, name: read.append(commit.task) or whole(o, commit, name))
    rows = MatchResult({}, output, [*commits, CommitRecord("rejects", {}, {})]).ranked_rows()
    # In order 0.75, 0.625, 0.5, 0.25, 0.125; the medians of the blocks are pairs 0, 4 and 6, the middle one is 6.
    assert {name: row["number"] for name, row in rows.items()} == {"best": 1, "median": 6, "worst": 4}
    assert sorted(set(read)) == (
        ["block-0", "block-1", "block-2", "block-3"] if is_old else ["block-0", "block-1", "block-3"]
    )
    [row] = (row for row in tables[0].to_pylist() if row["number"] == 1)
    assert rows["best"] == row


def test_without_scores_there_are_no_pairs_for_pictures(tmp_path: Path) -> None:
    output = StageOutput(tmp_path)
    commit = output.commit("block-000000", table_file("part", part_of({0: None})), {"scores": {"num_scored": 0}})
    assert MatchResult({}, output, [commit]).ranked_rows() == {}


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Collection]:
    for number in range(3):
        path = tmp_path / "photos" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(skimage.data.chelsea()[:20, :30]).save(path)
    (tmp_path / "list.csv").write_text("source,target\n0.png,1.png\n0.png,9.png\n")
    config = CollectionConfig(str(path.parent), PairList(str(tmp_path / "list.csv")))
    with open_collection("photos", config, 10**6, location_of(tmp_path / "scratch")) as opened:
        yield opened


def finished(collection: Collection, folder: Path, counts: dict[str, Any]) -> MatchConfig:
    """A complete stage output whose record has these counts, and the configuration that it was made with."""
    config = MatchConfig(collections={"photos": collection.config})
    output = StageOutput(folder / "photos")
    output.plan(
        {
            "stage": "match",
            "on": "photos",
            "dataset": collection.digest,
            "model": MODEL.identity(),
            "matches_per_pair": 50,
            "flow": False,
            "features": "float32",
            **collection.settings,
            "tasks": collection.tasks,
        }
    )
    row = CorrespondenceRows(5, False, "m", "c")(pair_of(PairRecord("8", "", "0.png", "1.png")))
    part = table_file("part", table_of([row], CORRESPONDENCES))
    output.commit("block-000000", part, {"num_pairs": 1, "num_failed": 0} | counts)
    rejected = collection.rejected
    assert isinstance(rejected, RejectedRows)
    output.commit("rejects", {"rejects.parquet": rejected.table.read_bytes()}, {"num_rejected": 1})
    output.finish({"stage": "match", "num_pairs": 1} | counts)
    return config


@pytest.mark.parametrize("name", ["num_described", "num_encoded"])
def test_what_is_complete_is_opened_and_so_is_what_version_0_1_wrote(
    collection: Collection, tmp_path: Path, name: str
) -> None:
    config = finished(collection, tmp_path / "match", {name: 2})
    result = match(config, collection, MODEL, tmp_path / "match", lambda metrics: None)
    assert result.num_described == 2
    assert [commit.task for commit in result.commits] == ["block-000000"], "rejected rows are no part"
    assert {name: row["number"] for name, row in result.ranked_rows().items()} == dict.fromkeys(RANKS, 7)


def test_other_settings_are_refused_with_their_names(collection: Collection, tmp_path: Path) -> None:
    finished(collection, tmp_path / "match", {"num_described": 2})
    changed = MatchConfig(collections={"photos": collection.config}, matches_per_pair=7)
    with pytest.raises(PlanConflict, match="matches_per_pair: 50 -> 7"):
        match(changed, collection, MODEL, tmp_path / "match", lambda metrics: None)


def test_the_rows_of_a_list_that_cannot_be_used_are_kept(collection: Collection, tmp_path: Path) -> None:
    output = StageOutput(tmp_path / "match" / "photos")
    output.plan({"stage": "match", "tasks": collection.tasks})
    kept = _keep_rejects(collection.rejected, output)
    assert kept["num_rejected"] == 1 and "9.png" in kept["first_rejection"]
    rejects = output.committed()["rejects"]
    [row] = pq.read_table(pa.BufferReader(output.read(rejects, "rejects.parquet"))).to_pylist()
    assert "9.png" in json.dumps(row)
    assert rejects.info == kept
    assert _keep_rejects(None, output) == {"num_rejected": 0, "first_rejection": None}


def test_counts_of_both_names_add_up() -> None:
    assert sum(map(num_described, [{"num_described": 3}, {"num_encoded": 4}])) == 7


def test_a_dry_run_says_what_is_matched_what_is_skipped_and_what_it_costs(
    collection: Collection, tmp_path: Path
) -> None:
    config = MatchConfig(collections={"photos": collection.config}, num_actors=1)
    assert len(plan_lines(collection)) == 3
    for name in ("notes.txt", ".hidden"):
        (tmp_path / "photos" / name).write_text("no image")
    with open_collection("photos", collection.config, 10**6) as again:
        first, _, skipped, rejected = plan_lines(again)
    assert first.startswith("1 block, 1 pair, 2 images to read")
    assert skipped == "skipped, no image by its name (1): notes.txt"
    assert rejected.startswith("1 row of the list cannot be used; the first: ") and "9.png" in rejected
    speed, wanted = cost_lines(config, collection, MeasuredCosts(30.0, 60.0, 8_000, 300))
    assert speed == "30000 ms per image and 60000 ms per pair on one actor, measured here"
    assert wanted.startswith("about 2.0 minutes, 0.0 actor hours, ")
    assert wanted.endswith(" of images to read, 8.3 kB of results with 1 actor")
    priced = MatchConfig(collections={"photos": collection.config}, price_per_hour=30.0)
    assert cost_lines(priced, collection, MeasuredCosts(30.0, 60.0, 8_000, 300))[1].endswith(
        "8.3 kB of results, price 1.00 with 2 actors"
    )


# -- whole runs --


def test_a_collection_with_bad_images_gives_rows_and_reasons(cats_and_cups: Path, tmp_path: Path, run: Run) -> None:
    whole = (cats_and_cups / "photos" / "cats" / "0 ü.v1.jpg").read_bytes()
    (cats_and_cups / "photos" / "cats" / "cut.jpg").write_bytes(whole[:2000])
    done = run(
        tmp_path / "w",
        "match-collection",
        "--data",
        str(cats_and_cups),
        settings=["match.flow=true", "match.num_actors=1"],
    )
    assert done.returncode == 3, done.stderr[-2000:]
    assert "4 pairs rejected as input; the first: " in done.stderr and "cut.jpg: damaged or truncated" in done.stderr
    rows = parts(tmp_path / "w" / "match-collection" / "match" / "photos" / "all")
    assert len(rows) == 12
    assert all(len(row["flow"]) == 3600 and row["source_points"] for row in rows)
    shifts = [
        np.median(np.subtract(r["source_points"], r["target_points"]), axis=0) for r in rows if r["category"] == "cats"
    ]
    assert all(0 < x < 45 and 0 < y < 30 for x, y in shifts)
    rejects = list((tmp_path / "w").rglob("rejects.parquet"))
    assert pq.read_table(rejects[0]).num_rows == 4


def test_a_folder_is_matched_as_it_lies_and_a_bucket_gives_the_same_in_other_blocks(
    cats_and_cups: Path, bucket: Bucket, tmp_path: Path, run: Run
) -> None:
    whole = (cats_and_cups / "photos" / "cats" / "0 ü.v1.jpg").read_bytes()
    (cats_and_cups / "photos" / "cats" / "cut.jpg").write_bytes(whole[:2000])
    for path in cats_and_cups.rglob("*.jpg"):
        bucket.put(f"of mine/{path.relative_to(cats_and_cups / 'photos').as_posix()}", path.read_bytes())
    tables = []
    for root, actors, batch, max_pairs in (("photos", 1, 1, 500), (bucket.uri("of mine"), 2, 16, 3)):
        settings = [f"match.collections.photos.root={root}"]
        settings += [f"match.num_actors={actors}", f"match.batch_size={batch}"]
        settings += [f"match.collections.photos.max_pairs={max_pairs}", "match.flow=true"]
        work = tmp_path / str(actors)
        done = run(work, "match-folder", "--data", str(cats_and_cups), settings=settings)
        assert done.returncode == 3, done.stderr[-2000:]
        assert "4 pairs failed to match; the first: " in done.stderr and "cut.jpg: damaged or truncated" in done.stderr
        rows = parts(work / "match-folder" / "match" / "photos")
        tables.append({row["pair_id"]: row for row in rows})
        assert len(tables[-1]) == len(rows) == 16
        assert sorted(row["number"] for row in rows) == list(range(16))
    failed = [row for row in tables[0].values() if row["status"] != "matched"]
    assert len(failed) == 4 and all("cut.jpg" in row["status"] and row["score"] is None for row in failed)
    by_images = [{(r["source"], r["target"]): r for r in table.values()} for table in tables]
    assert by_images[0].keys() == by_images[1].keys()
    for pair, row in by_images[0].items():
        other = by_images[1][pair]
        assert {k: v for k, v in row.items() if k not in ("number", "pair_id")} == {
            k: v for k, v in other.items() if k not in ("number", "pair_id")
        }


@pytest.mark.chaos
def test_a_list_is_matched_as_it_lies_though_an_image_ends_its_worker(
    cats_and_cups: Path, tmp_path: Path, deadly_image: DeadlyImage, run: Run
) -> None:
    cats = [f"cats/{number} ü.v1.jpg" for number in range(4)]
    named = [
        *zip(cats, cats[1:], strict=False),
        (cats[0], "cats/deadly.jpg"),
        ("gone.jpg", cats[0]),
        (cats[2], cats[0]),
    ]
    rows = [f'{source},{target},felis,"200,100;20,30"' for source, target in named]
    (cats_and_cups / "pairs.csv").write_text(
        "\n".join(["source,target,category,source_points", *rows]), encoding="utf-8"
    )
    killed = deadly_image(cats_and_cups / "photos" / "cats" / "deadly.jpg", signal.SIGKILL)
    settings = ["match.collections.photos={root: photos, select: list, pair_list: pairs.csv, max_pairs: 3}"]
    settings += ["match.min_actors=1", "match.num_actors=3"]
    done = run(tmp_path / "w", "match-folder", "--data", str(cats_and_cups), settings=settings)
    assert done.returncode == 3, done.stderr[-2000:]
    assert len(killed()) == 4, "once its actor, three times the process that finds out why"
    assert "1 pair rejected as input; the first: " in done.stderr
    assert "row 5: image 'gone.jpg' is not in the folder" in done.stderr
    assert "1 pair failed to match; the first: image cats/deadly.jpg: ended its worker's process" in done.stderr
    folder = tmp_path / "w" / "match-folder" / "match" / "photos"
    table = {row["pair_id"]: row for row in parts(folder)}
    assert {i: row["status"] for i, row in table.items() if row["status"] != "matched"} == {
        "000000004": "image cats/deadly.jpg: ended its worker's process 3 times (SIGKILL, perhaps for want of memory)"
    }
    assert sorted(table) == [f"{number:09d}" for number in (1, 2, 3, 4, 6)]
    assert all((row["source"], row["target"]) == named[row["number"]] for row in table.values())
    assert all(row["category"] == "felis" for row in table.values())
    for row in (table["000000001"], table["000000002"]):  # the next crop is 12 pixels further right, 8 further down
        moved = np.subtract(row["given_points"], row["transferred_points"])
        assert np.abs(moved - (12, 8)).max() < 8
    assert pq.read_table(next(folder.rglob("rejects.parquet")))["pair_id"].to_pylist() == ["000000005"]
    assert not (folder / "scratch").exists() and not (folder / "begun").exists()
    with (cats_and_cups / "pairs.csv").open("a", encoding="utf-8") as file:
        file.write(f"\n{cats[3]},{cats[0]},,")
    again = run(tmp_path / "w", "match-folder", "--data", str(cats_and_cups), settings=settings)
    assert again.returncode == 2 and "holds an earlier match with other settings (dataset:" in again.stderr


@pytest.mark.chaos
@pytest.mark.slow
def test_matching_killed_in_the_middle_goes_on_and_gives_the_same_bytes(
    cats_and_cups: Path, tmp_path: Path, kill_tree: KillTree, run: Run, command_line: CommandLine
) -> None:
    settings, alone = ["shard.max_pairs=1"], "match.num_actors=1"
    arguments = ("match-collection", "--data", str(cats_and_cups))
    undisturbed, killed = tmp_path / "a", tmp_path / "b"
    assert run(undisturbed, *arguments, settings=[*settings, alone]).returncode == 0
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command_line(killed, *arguments, settings=settings), stdout=log, stderr=log)
    commits = killed / "match-collection" / "match" / "photos" / "all" / "commits"
    wait_for(lambda: len(list(commits.glob("*.json"))) >= 3, process)
    kill_tree(process)
    done_before = {p.name: p.stat().st_mtime_ns for p in commits.glob("*.json")}
    assert 3 <= len(done_before) < 12
    assert run(killed, *arguments, settings=[*settings, alone]).returncode == 0
    assert done_before.items() <= {p.name: p.stat().st_mtime_ns for p in commits.glob("*.json")}.items()
    digests = []
    for work in (undisturbed, killed):
        listed = manifest(work / "match-collection" / "match" / "photos" / "all")["commits"]
        digests.append([(c["task"], c["files"]["part.parquet"]["sha256"]) for c in listed])
    assert digests[0] == digests[1]
    assert len({task for task, _ in digests[1]}) == 12
