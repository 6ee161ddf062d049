"""The shard stage: its logic with tasks in this process; and, slow, on Ray."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyarrow import fs

from dhpf.errors import InputError
from dhpf.manifest import CommitRecord
from dhpf.pipelines.blocks import pace
from dhpf.pipelines.blocks.caution import Caution
from dhpf.pipelines.blocks.pool import BlockWork
from dhpf.pipelines.config import ShardConfig, SourceConfig
from dhpf.pipelines.inputs.image_stamps import ReplacedImages
from dhpf.pipelines.inputs.shard_set import ShardSet, open_shard_set
from dhpf.pipelines.outputs.store import PlanConflict, remove_outputs
from dhpf.pipelines.stages import shard as shard_stage
from dhpf.pipelines.stages.shard import ShardJob, ShardWorker, shard
from dhpf.shards.shards import Shard
from dhpf.storage import location_of
from tests.pipelines.stage_outputs import manifest

if TYPE_CHECKING:
    from infra.s3_server import Bucket
    from tests.pipelines.conftest import Ended


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def config_of(photos: Path, max_pairs: int = 4, **options: str) -> ShardConfig:
    source = SourceConfig("image_folder", ("all",), {"root": str(photos), **options})
    return ShardConfig(sources={"photos": source}, max_pairs=max_pairs)


def sharded(photos: Path, folder: Path, max_pairs: int = 4, **options: str) -> ShardSet:
    (shards,) = shard(config_of(photos, max_pairs, **options), folder)
    return shards


def rejects(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.rglob("rejects.parquet")
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def tar_digests(root: Path) -> dict[str, str]:
    commits = json.loads((root / "MANIFEST.json").read_bytes())["commits"]
    return {c["task"]: c["files"]["shard.tar"]["sha256"] for c in commits if "shard.tar" in c["files"]}


def test_what_is_listed_is_written_or_rejected(tasks_here: None, photos: Path, tmp_path: Path) -> None:
    listing = photos / "pairs.csv"
    listing.write_text("source,target\n0.png,1.png\n0.png,nowhere.png\n1.png,2.png\n3.png,cut.png\n")
    (photos / "cut.png").write_bytes((photos / "0.png").read_bytes()[:500])
    shards = sharded(photos, tmp_path / "out", max_pairs=1, select="list", pair_list=str(listing))
    record, rows = shards.record, rejects(tmp_path / "out")
    assert (record["num_pairs"], record["num_rejected"], record["num_images"]) == (2, 2, 4)
    assert [row["pair_id"] for row in rows] == ["000000002", "000000004"]
    assert (
        record["first_rejection"] == rows[0]["reason"] == f"{listing} row 2: image 'nowhere.png' is not in the folder"
    )
    tars = [path for path in tmp_path.rglob("shard.tar")]
    assert record["num_bytes"] == sum(path.stat().st_size for path in tars) and len(tars) == 3
    assert [len(part) for _, part in shards.shards if len(part)] == [1, 1]


def test_a_source_that_changes_meanwhile_is_said(
    tasks_here: None, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_stage, "_plan", lambda *_, plan=shard_stage._plan: lost_one(*plan(*_)))
    with pytest.raises(InputError, match="16 pairs were listed, but 15 written and 0 rejected, .* --restart shard"):
        sharded(photos, tmp_path / "out")
    assert not list(tmp_path.rglob("MANIFEST.json"))


def lost_one(plan: dict[str, Any], *others: list[Any]) -> tuple[dict[str, Any], *tuple[list[Any], ...]]:
    return plan | {"num_listed": plan["num_listed"] + 1}, *others


def test_pairs_in_are_pairs_out_and_rejections(ray_cluster: None, photos: Path, tmp_path: Path) -> None:
    (photos / "cut.png").write_bytes((photos / "0.png").read_bytes()[:500])
    (photos / os.fsdecode(b"caf\xe9.png")).write_bytes((photos / "0.png").read_bytes())
    listing = photos / "pairs.csv"
    names = [f"{n}.png" for n in range(6)]
    rows = [f"{a},{b}," for n, a in enumerate(names) for b in names[n + 1 :]]
    rows += ["0.png,cut.png,", "0.png,nowhere.png,", '2.png,1.png,"99,5"']
    listing.write_text("\n".join(["source,target,source_points", *rows]))

    listed = sharded(photos, tmp_path / "listed", select="list", pair_list=str(listing))
    assert (listed.num_pairs, len(rejects(tmp_path / "listed"))) == (15, 3)
    assert [len(s) for _, s in listed.shards] == [4, 4, 4, 3]
    reasons = {row["pair_id"]: row["reason"] for row in rejects(tmp_path / "listed")}
    assert "image cut.png: damaged or truncated" in reasons["000000016"]
    assert reasons["000000017"] == f"{listing} row 17: image 'nowhere.png' is not in the folder"
    assert reasons["000000018"] == "source keypoints: (99, 5) lies outside image 2.png of 40 x 30 pixels"
    assert listed.record["first_rejection"] == reasons["000000017"], "the source's own come first"

    everything = sharded(photos, tmp_path / "all")
    rows_of_all = rejects(tmp_path / "all")
    assert (everything.num_pairs, len(rows_of_all)) == (15, 13), "8 images make 28 pairs, the 6 good ones 15"
    assert all("cut.png" in row["reason"] or "not UTF-8 text" in row["reason"] for row in rows_of_all)
    assert everything.record["num_images"] == sum(len(s.image_ids) for _, s in everything.shards)
    pairs = [(p.source, p.target) for _, s in everything.shards for p in s.pairs]
    assert pairs == [(a, b) for n, a in enumerate(names) for b in names[n + 1 :]]


def test_what_is_complete_is_left_and_what_is_missing_is_made(tasks_here: None, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    first = sharded(photos, folder)
    root = folder / "photos" / "all"
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert sharded(photos, folder).digest == first.digest
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before

    # As a kill leaves it: one block and all that follows not yet committed.
    for name in ("MANIFEST.json", "commits/block-000001.json", "commits/rejects.json"):
        (root / name).unlink()
    with pytest.raises(InputError, match="photos/all: not complete"):
        open_shard_set(folder, "photos/all")
    assert sharded(photos, folder).digest == first.digest
    made_again = {path.parts[-3] for path in root.glob("data/*/*/*") if path not in before}
    assert made_again == {"block-000001", "rejects"}
    touched = {path.name for path in root.glob("data/*") if path.stat().st_mtime_ns != before[path]}
    assert touched == {"block-000001", "rejects"}, "nothing else was even tried"
    assert len(list(root.glob("data/*/*"))) == 5, "data that no commit names is gone"


def test_one_pool_writes_all_splits_and_each_is_complete_with_its_last_block(
    tasks_here: None, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = {name: SourceConfig("image_folder", ("all",), {"root": str(photos)}) for name in ("first", "second")}
    config = ShardConfig(sources=sources, max_pairs=4)
    do_blocks, pools = shard_stage.do_blocks, list[int]()

    def up_to_five(works: Sequence[BlockWork[ShardJob]], *arguments: Any, **options: Any) -> Iterator[Any]:
        pools.append(len(works))
        for number, found in enumerate(do_blocks(works, *arguments, **options), 1):
            yield found
            if number == 5 and len(works) == 2:
                raise InputError("no more")

    monkeypatch.setattr(shard_stage, "MOST_ACTORS", 1)
    monkeypatch.setattr(shard_stage, "do_blocks", up_to_five)
    with pytest.raises(InputError, match="no more"):
        shard(config, location_of(tmp_path))
    first = open_shard_set(tmp_path, "first/all")
    assert first.num_pairs == 15, "complete, though the other split is not"
    with pytest.raises(InputError, match="second/all: not complete"):
        open_shard_set(tmp_path, "second/all")
    begun = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("commits/block*.json")}
    assert {path.parts[-4] for path in begun} == {"first", "second"} and len(begun) < 8

    sets = shard(config, location_of(tmp_path))
    assert [found.name for found in sets] == ["first/all", "second/all"] and pools == [2, 1]
    assert begun.items() <= {path: path.stat().st_mtime_ns for path in begun}.items(), "what is done stays"
    assert tar_digests(tmp_path / "first" / "all") == tar_digests(tmp_path / "second" / "all")


def test_images_that_were_replaced_are_named_and_touched_ones_are_not(
    tasks_here: None, photos: Path, tmp_path: Path
) -> None:
    sharded(photos, tmp_path / "out")
    root = tmp_path / "out" / "photos" / "all"
    digests, before = tar_digests(root), (photos / "4.png").read_bytes()
    for path in photos.iterdir():
        os.utime(path, (1, 1))
    sharded(photos, tmp_path / "out")
    (photos / "4.png").write_bytes((photos / "5.png").read_bytes())
    with pytest.raises(ReplacedImages, match="shard set photos/all: 1 image replaced .*: 4.png; .*--restart shard"):
        sharded(photos, tmp_path / "out")
    (root / "MANIFEST.json").unlink()
    (root / "commits" / "block-000000.json").unlink()
    with pytest.raises(ReplacedImages, match=": 4.png; "):
        sharded(photos, tmp_path / "out")
    (photos / "4.png").write_bytes(before)
    sharded(photos, tmp_path / "out")
    assert tar_digests(root) == digests


def test_an_image_that_changes_between_two_blocks_is_rejected(
    tasks_here: None, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(worker: ShardWorker, job: ShardJob, caution: Caution, work: Any = ShardWorker.work) -> CommitRecord:
        commit: CommitRecord = work(worker, job, caution)
        (photos / "0.png").write_bytes((photos / "1.png").read_bytes())
        return commit

    monkeypatch.setattr(ShardWorker, "work", work)
    shards = sharded(photos, tmp_path / "out", max_pairs=1)
    assert (shards.num_pairs, {row["reason"].partition(" (")[0] for row in rejects(tmp_path / "out")}) == (
        11,
        {"image 0.png: changed since the run began"},
    )


def test_other_settings_and_other_pairs_are_refused(tasks_here: None, photos: Path, tmp_path: Path) -> None:
    sharded(photos, tmp_path / "out")
    with pytest.raises(PlanConflict, match="max_pairs: 4 -> 3.*--restart shard"):
        sharded(photos, tmp_path / "out", max_pairs=3)
    (photos / "5.png").rename(photos / "6.png")
    with pytest.raises(PlanConflict, match="pairs_sha256"):
        sharded(photos, tmp_path / "out")


def test_an_index_that_changed_by_one_digit_is_noticed(tasks_here: None, photos: Path, tmp_path: Path) -> None:
    sharded(photos, tmp_path / "out")
    path = next(tmp_path.rglob("block-000000/*/index.json"))
    path.write_bytes(path.read_bytes().replace(b'"width": 40', b'"width": 41'))
    with pytest.raises(InputError, match="index.json: damaged since it was written"):
        open_shard_set(tmp_path / "out", "photos/all")


def test_shards_in_a_bucket_are_the_same_shards(
    ray_cluster: None, photos: Path, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "copies"))
    here = sharded(photos, tmp_path / "here")
    store = bucket.uri("our shards")
    config = dataclasses.replace(config_of(photos), store=store)
    (there,) = shard(config, tmp_path / "there")
    assert there.digest == here.digest, "where shards lie is no part of what they hold"
    assert not list((tmp_path / "there").glob("**/data/**/*.tar"))
    assert [s.pairs for _, s in there.shards] == [s.pairs for _, s in here.shards]
    assert all(there.read(f"{n}.png") == (photos / f"{n}.png").read_bytes() for n in range(6))
    assert objects(bucket, "our shards") == {s.paths[0].partition("?")[0] for _, s in there.shards}

    with pytest.raises(PlanConflict, match="store: "):
        shard(dataclasses.replace(config, store=bucket.uri("elsewhere")), tmp_path / "there")
    # Another folder's shards below the same URI; then as a kill leaves it: an object that no commit names.
    shard(config, tmp_path / "more")
    root = tmp_path / "there" / "photos" / "all"
    for name in ("MANIFEST.json", "commits/block-000001.json", "commits/rejects.json"):
        (root / name).unlink()
    (again,) = shard(config, tmp_path / "there")
    assert again.digest == here.digest
    assert len(objects(bucket, "our shards")) == 2 * len(here.shards), "the lost one is gone, the other folder's stay"
    remove_outputs(location_of(tmp_path / "there"))
    assert len(objects(bucket, "our shards")) == len(here.shards)


def objects(bucket: Bucket, prefix: str) -> set[str]:
    found = bucket.files.get_file_info(fs.FileSelector(f"{bucket.name}/{prefix}", recursive=True))
    return {f"s3://{quote(file.path)}" for file in found if file.is_file}


def test_an_unusable_source_is_one_sentence(tasks_here: None, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        sharded(tmp_path / "nowhere", tmp_path / "out")


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (signal.SIGSEGV, "ended its worker's process 2 times (SIGSEGV)"),
        pytest.param(signal.SIGSTOP, "took longer than 5 s", marks=pytest.mark.long),
    ],
)
def test_an_image_that_ends_or_stops_its_worker_costs_only_its_pairs(
    how: signal.Signals,
    reason: str,
    ray_cluster: None,
    photos: Path,
    tmp_path: Path,
    deadly_image: Callable[[Path, signal.Signals], Callable[[], list[int]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pace, "FIRST_PACE", 0.01)
    listing = photos / "pairs.csv"
    listing.write_text("source,target\n0.png,1.png\n1.png,deadly.png\ndeadly.png,2.png\n3.png,4.png\n")
    listed = {"select": "list", "pair_list": str(listing)}
    killed = deadly_image(photos / "deadly.png", how)
    config = dataclasses.replace(config_of(photos, max_pairs=3, **listed), stuck_after=10)
    (found,) = shard(config, tmp_path / "deadly")
    assert len(killed()) >= 3 and os.getpid() not in killed(), "its actor, and twice the process that finds out why"
    reason = f"image deadly.png: {reason}"
    assert [(row["pair_id"], row["reason"]) for row in rejects(tmp_path / "deadly")] == [
        ("000000002", reason),
        ("000000003", reason),
    ]
    assert (found.num_pairs, found.record["num_rejected"], found.record["first_rejection"]) == (2, 2, reason)
    (photos / "deadly.png").write_bytes(b"no image")
    sharded(photos, tmp_path / "damaged", max_pairs=3, **listed)
    assert tar_digests(tmp_path / "deadly" / "photos" / "all") == tar_digests(tmp_path / "damaged" / "photos" / "all")


DRIVER = """
import os, sys, tempfile
from pathlib import Path
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ.pop("RAY_ADDRESS", None)
import ray
from dhpf.manifest import CommitRecord
from dhpf.pipelines.blocks import pace
from dhpf.pipelines.blocks.caution import Caution
from dhpf.pipelines.config import ShardConfig, SourceConfig
from dhpf.pipelines.stages.shard import ShardJob, ShardWorker, shard
photos, out, temporary = sys.argv[1:]
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, _temp_dir=temporary)
source = SourceConfig("image_folder", ("all",), {"root": photos})
shard(ShardConfig(sources={"photos": source}, max_pairs=1), Path(out))
"""


@pytest.mark.chaos
@pytest.mark.slow
def test_sharding_killed_in_the_middle_goes_on_and_gives_the_same_bytes(
    ray_cluster: None,
    photos: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    kill_tree: Callable[[subprocess.Popen[bytes]], None],
) -> None:
    for number in range(6, 20):
        (photos / f"{number:02d}.png").write_bytes((photos / f"{number % 6}.png").read_bytes())
    root = tmp_path / "killed" / "photos" / "all"
    with (tmp_path / "log").open("wb") as log, tempfile.TemporaryDirectory(prefix="ray") as temporary:
        command = [sys.executable, "-c", DRIVER, str(photos), str(tmp_path / "killed"), temporary]
        driver = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.time() + 120
        while len(list(root.glob("commits/*.json"))) < 3:
            assert driver.poll() is None, (tmp_path / "log").read_text()
            assert time.time() < deadline, "waited in vain"
            time.sleep(0.01)
        kill_tree(driver)
    done_before = {path.name: path.stat().st_mtime_ns for path in root.glob("commits/*.json")}
    assert 3 <= len(done_before) < 190 and not (root / "MANIFEST.json").exists()

    sharded(photos, tmp_path / "killed", max_pairs=1)
    sharded(photos, tmp_path / "undisturbed", max_pairs=1)
    after = {path.name: path.stat().st_mtime_ns for path in root.glob("commits/*.json")}
    assert done_before.items() <= after.items(), "what was done is not done again"
    assert len(tar_digests(root)) == 190
    assert tar_digests(root) == tar_digests(tmp_path / "undisturbed" / "photos" / "all")
    opened = open_shard_set(tmp_path / "killed", "photos/all")
    assert all(isinstance(s, Shard) and len(s.pairs) == 1 for _, s in opened.shards)


def test_shards_do_not_depend_on_how_they_were_made(
    cats_and_cups: Path, tmp_path: Path, run: Callable[..., Ended]
) -> None:
    digests = []
    for cpus in ("1", "4"):
        work = tmp_path / cpus
        settings = ["shard.max_pairs=3", f"shard.resources.cpus={cpus}"]
        arguments = ("match-collection", "--data", str(cats_and_cups), "--only", "shard")
        assert run(work, *arguments, settings=settings).returncode == 0
        commits = manifest(work / "match-collection" / "shard" / "photos" / "all")["commits"]
        digests.append([{n: f["sha256"] for n, f in c["files"].items()} for c in commits])
    assert digests[0] == digests[1]
