"""Whole workflows on a real Ray cluster with real processes; small, yet every stage does what it is there for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import skimage.data
import torch
from PIL import Image

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

    from tests.conftest import Bucket

FILE = Path(__file__).parents[2] / "workflows.yaml"
pytestmark = pytest.mark.slow

TINY = [
    "model={backbone: efficientnet_lite0, projection_divisor: 1, exponent: 4}",  # more is learned than the gates
    "train.projection_start=near-identity",
    "shard.sources.photo-warps.options={views: 2, keypoints: 6}",
    "shard.max_pairs=4",
    "train.epochs=2",
    "train.batch_size=4",
    "train.learning_rate=0.1",
    "search={on: photo-warps/val, beam: 1, max_layers: 2, max_pairs: 2}",
    "evaluate.methods={dynamic: trained, searched: searched, last: {selection: last}}",
]


ELASTIC = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15"}  # a lost worker is not waited for longer
KillTree = Callable[[subprocess.Popen[bytes]], None]


def command(work: Path, workflow: str, *arguments: str, settings: list[str] | None = None) -> list[str]:
    sets = [part for setting in settings or [] for part in ("--set", setting)]
    return [
        *(sys.executable, "-m", "dhpf.pipelines", "run", workflow, "--file", str(FILE), "--work", str(work)),
        *arguments,
        *sets,
    ]


def run(
    work: Path, workflow: str, *arguments: str, settings: list[str] | None = None
) -> subprocess.CompletedProcess[str]:
    full = command(work, workflow, *arguments, settings=settings)
    return subprocess.run(full, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("work")
    done = run(work, "quickstart", settings=TINY)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "registered as dhpf version 1" in done.stdout
    return work


def manifest(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "MANIFEST.json").read_bytes())
    return content


def parts(folder: Path) -> list[dict[str, object]]:
    rows = []
    for commit in manifest(folder)["commits"]:  # type: ignore[attr-defined]
        if commit["task"] != "rejects":
            rows += pq.read_table(folder / commit["files"]["part.parquet"]["key"]).to_pylist()
    return rows


def test_every_stage_is_complete_and_adds_up(quickstart: Path) -> None:
    folder = quickstart / "quickstart"
    expected = {"train": 16, "val": 4, "test": 10}
    for split, number in expected.items():
        record = manifest(folder / "shard" / "photo-warps" / split)["record"]
        assert record["num_pairs"] == number and record["num_rejected"] == 0  # type: ignore[index]
    progress = json.loads(next(folder.glob("train/data/model/*/progress.json")).read_bytes())
    assert [entry["epoch"] for entry in progress["history"]] == [1, 2]
    for method in ("dynamic", "searched", "last"):
        rows = parts(folder / "evaluate" / "photo-warps" / "test" / method / "predictions")
        assert sorted(row["number"] for row in rows) == list(range(10))  # type: ignore[type-var]
        assert all(len(row["predicted_keypoints"]) == len(row["target_keypoints"]) for row in rows)  # type: ignore[arg-type]
    assert len(parts(folder / "match" / "photo-warps" / "test")) == 10


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_every_stage_runs_on_a_gpu_that_its_actors_share(tmp_path: Path) -> None:
    shares = [f"{stage}.resources.gpus=0.2" for stage in ("search", "train", "evaluate", "match")]
    done = run(tmp_path, "quickstart", settings=[*TINY, *shares, "evaluate.intermediates={dynamic: 2}"])
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "quickstart"
    history = json.loads(next(folder.glob("train/data/model/*/progress.json")).read_bytes())["history"]
    assert history[-1]["val_pck"] > 0.5
    rows = parts(folder / "match" / "photo-warps" / "test")
    assert len(rows) == 10 and all(len(row["confidence"]) > 5 for row in rows)  # type: ignore[arg-type]


def test_the_searched_layers_are_those_that_a_method_uses(quickstart: Path) -> None:
    folder = quickstart / "quickstart"
    sets = parts(folder / "search")
    best = max(sets, key=lambda row: row["pck"])  # type: ignore[arg-type,return-value]
    rows = parts(folder / "evaluate" / "photo-warps" / "test" / "searched" / "predictions")
    assert len(sets) == 17 + 16 and {row["layers"] for row in rows} == {best["layers"]}


def test_everything_is_in_mlflow_with_pictures(quickstart: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{quickstart / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("quickstart")
    runs = {r.data.tags["dhpf.stage"]: r for r in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"workflow", "shard", "search", "train", "evaluate", "match"}
    assert all(r.info.status == "FINISHED" for r in runs.values())
    parent = runs["workflow"].info.run_id
    assert all(r.data.tags["mlflow.parentRunId"] == parent for stage, r in runs.items() if stage != "workflow")
    assert runs["train"].data.tags["dataset photo-warps/train"]
    assert {m.step for m in client.get_metric_history(runs["train"].info.run_id, "val_pck")} == {1, 2}
    assert {m.step for m in client.get_metric_history(runs["search"].info.run_id, "best_pck")} == {1, 2}
    assert [file.path for file in client.list_artifacts(runs["search"].info.run_id) if not file.is_dir] == [
        "config.json",
        "sets.csv",
    ]
    metrics = runs["evaluate"].data.metrics
    for method in ("dynamic", "searched", "last"):
        assert f"photo-warps/test/{method}/PCK_0.1 image" in metrics
        assert f"photo-warps/test/{method}/PCK_0.1 image/class/chelsea" in metrics
    card = next((quickstart / "mlartifacts").rglob("MODEL_CARD.md")).read_text()
    assert runs["train"].data.tags["dataset photo-warps/train"] in card and "val_pck: " in card
    assert client.get_model_version("dhpf", "1").description == card
    pictures = list((quickstart / "mlartifacts").rglob("*.png"))
    names = {p.stem for p in pictures}
    assert {"comparison", "layers-per-class", "best-matches", "worst-warp", "loss", "selection-rates"} <= names
    assert {"search", "comparison-per-class"} <= names
    assert all(np.asarray(Image.open(p)).std() > 5 for p in pictures)


def test_the_registered_model_loads_by_alias_without_pickle(quickstart: Path) -> None:
    script = """
import sys, io, mlflow, pandas as pd, skimage.data
from PIL import Image
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/dhpf@latest-trained")
buffer = io.BytesIO()
Image.fromarray(skimage.data.chelsea()).save(buffer, "PNG")
image = buffer.getvalue()
answer = model.predict(pd.DataFrame([{"source": image, "target": image, "points": [[100.0, 80.0], [300.0, 200.0]]}]))
print(answer.iloc[0].to_dict())
"""
    uri = f"sqlite:///{quickstart / 'mlflow.db'}"
    environment = os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    done = subprocess.run(
        [sys.executable, "-c", script, uri], capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer = eval(done.stdout.strip().splitlines()[-1], {"__builtins__": {}})
    assert answer["valid"] == [True, True]
    assert np.abs(np.array(answer["points"]) - [[100, 80], [300, 200]]).max() < 10
    assert not list((quickstart / "mlartifacts").rglob("*.pkl"))


def test_a_second_run_does_nothing(quickstart: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (quickstart / "quickstart").rglob("*") if p.is_file()}
    done = run(quickstart, "quickstart", settings=TINY)
    assert done.returncode == 0, done.stderr[-2000:]
    after = {p: p.stat().st_mtime_ns for p in (quickstart / "quickstart").rglob("*") if p.is_file()}
    assert before == after


def test_another_configuration_is_refused_by_name(quickstart: Path) -> None:
    done = run(quickstart, "quickstart", "--only", "train", settings=[*TINY, "train.learning_rate=0.5"])
    assert done.returncode == 2
    assert "config.learning_rate: 0.1 -> 0.5" in done.stderr and "--restart train" in done.stderr


def test_scores_come_from_the_stored_predictions(quickstart: Path) -> None:
    """Scored again by hand from the Parquet, in original pixels scaled to the frame."""
    root = quickstart / "quickstart" / "evaluate" / "photo-warps" / "test" / "last"
    values = []
    for row in parts(root / "predictions"):
        scale = 240 / np.array(row["target_size"])
        offset = (np.array(row["predicted_keypoints"]) - np.array(row["target_keypoints"])) * scale
        values.append(np.mean(np.linalg.norm(offset, axis=1) <= 24))
    commits = manifest(root / "scores")["commits"]
    summary = commits[0]["info"]["summary"]  # type: ignore[index]
    assert summary["PCK@0.1 image"] == pytest.approx(np.mean(values))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "photos"
    for name, image in (("cats", skimage.data.chelsea()), ("cups", skimage.data.coffee())):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            crop = image[number * 8 : number * 8 + 220, number * 12 : number * 12 + 300]
            Image.fromarray(crop).save(folder / name / f"{number} ü.v1.jpg", quality=92)
    return tmp_path / "data"


def test_a_collection_with_bad_images_gives_rows_and_reasons(photos: Path, tmp_path: Path) -> None:
    whole = (photos / "photos" / "cats" / "0 ü.v1.jpg").read_bytes()
    (photos / "photos" / "cats" / "cut.jpg").write_bytes(whole[:2000])
    done = run(tmp_path / "w", "match-collection", "--data", str(photos), settings=["match.flow=true"])
    assert done.returncode == 3, done.stderr[-2000:]
    assert "4 pairs rejected" in done.stderr and "cut.jpg: damaged or truncated" in done.stderr
    rows = parts(tmp_path / "w" / "match-collection" / "match" / "photos" / "all")
    assert len(rows) == 12
    assert all(len(row["flow"]) == 3600 and row["source_points"] for row in rows)  # type: ignore[arg-type]
    shifts = [
        np.median(np.subtract(r["source_points"], r["target_points"]), axis=0) for r in rows if r["category"] == "cats"
    ]
    assert all(0 < x < 45 and 0 < y < 30 for x, y in shifts)
    rejects = list((tmp_path / "w").rglob("rejects.parquet"))
    assert pq.read_table(rejects[0]).num_rows == 4


def test_a_folder_teaches_without_keypoints_and_is_matched_with_what_it_taught(photos: Path, tmp_path: Path) -> None:
    small = ["model.image_side=160", "shard.sources.photo-warps.options={views: 1, keypoints: 6}"]
    jointly = ["evaluate.methods.jointly=trained", "evaluate.intermediates={jointly: 4}"]
    settings = [*small, *jointly, "train.epochs=2", "train.batch_size=4"]
    done = run(tmp_path, "learn-folder", "--data", str(photos), settings=settings)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "registered as dhpf version 1" in done.stdout and "taught" in done.stdout and "untaught" in done.stdout
    folder = tmp_path / "learn-folder"
    progress = json.loads(next(folder.glob("train/data/model/*/progress.json")).read_bytes())
    losses = [entry["contrastive"] for entry in progress["history"]]
    assert len(losses) == 2 and losses[1] < losses[0]
    rates = progress["history"][0]["selection_rates"]
    assert [layer for layer, rate in enumerate(rates) if rate] == [5, 11, 15] and len(rates) == 17
    predictions = [
        folder / "evaluate" / "photo-warps" / "test" / name / "predictions" for name in ("taught", "jointly")
    ]
    assert "jointly" in done.stdout and parts(predictions[0]) != parts(predictions[1])
    settings = ["match.model=models:/dhpf@latest-trained", "match.intermediates=2"]
    matched = run(tmp_path, "match-folder", "--data", str(photos), settings=settings)
    assert matched.returncode == 0, matched.stderr[-2000:]
    rows = parts(tmp_path / "match-folder" / "match" / "photos")
    mask = sum(1 << layer for layer in (5, 11, 15))
    assert len(rows) == 12 and all(r["model"] == "models:/dhpf/1" and r["layers"] == mask for r in rows)
    assert manifest(tmp_path / "match-folder" / "match" / "photos")["record"]["intermediates"] == 2  # type: ignore[index]
    cells = np.array(rows[0]["target_points"]) * 240 / rows[0]["target_size"] / 4
    assert np.abs(cells - cells.round()).max() > 0.1, "matched jointly, points lie between cells, too"


def test_a_folder_is_matched_as_it_lies_and_a_bucket_gives_the_same_in_other_blocks(
    photos: Path, bucket: Bucket, tmp_path: Path
) -> None:
    whole = (photos / "photos" / "cats" / "0 ü.v1.jpg").read_bytes()
    (photos / "photos" / "cats" / "cut.jpg").write_bytes(whole[:2000])
    for path in photos.rglob("*.jpg"):
        bucket.put(f"of mine/{path.relative_to(photos / 'photos').as_posix()}", path.read_bytes())
    tables = []
    for root, actors, batch, max_pairs in (("photos", 1, 1, 500), (bucket.uri("of mine"), 3, 16, 3)):
        settings = [f"match.collections.photos.root={root}"]
        settings += [f"match.num_actors={actors}", f"match.batch_size={batch}"]
        settings += [f"match.collections.photos.max_pairs={max_pairs}", "match.flow=true"]
        work = tmp_path / str(actors)
        done = run(work, "match-folder", "--data", str(photos), settings=settings)
        assert done.returncode == 3, done.stderr[-2000:]
        assert "4 pairs rejected" in done.stderr and "cut.jpg: damaged or truncated" in done.stderr
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
    photos: Path, tmp_path: Path, deadly_image: Callable[[Path, signal.Signals], list[int]]
) -> None:
    cats = [f"cats/{number} ü.v1.jpg" for number in range(4)]
    named = [*zip(cats, cats[1:], strict=False), (cats[0], "cats/9.jpg"), ("gone.jpg", cats[0]), (cats[2], cats[0])]
    rows = [f'{source},{target},felis,"200,100;20,30"' for source, target in named]
    (photos / "pairs.csv").write_text("\n".join(["source,target,category,source_points", *rows]), encoding="utf-8")
    killed = deadly_image(photos / "photos" / "cats" / "9.jpg", signal.SIGKILL)
    settings = ["match.collections.photos={root: photos, select: list, pair_list: pairs.csv, max_pairs: 3}"]
    settings += ["match.min_actors=1", "match.num_actors=3"]
    done = run(tmp_path / "w", "match-folder", "--data", str(photos), settings=settings)
    assert done.returncode == 3, done.stderr[-2000:]
    assert len(killed) == 3, "once its actor, twice the process that finds out why"
    assert "2 pairs rejected" in done.stderr and "row 5: image 'gone.jpg' is not in the folder" in done.stderr
    folder = tmp_path / "w" / "match-folder" / "match" / "photos"
    table = {row["pair_id"]: row for row in parts(folder)}
    assert {i: row["status"] for i, row in table.items() if row["status"] != "matched"} == {
        "000000004": "image cats/9.jpg: ended its worker's process 2 times (SIGKILL, perhaps for want of memory)"
    }
    assert sorted(table) == [f"{number:09d}" for number in (1, 2, 3, 4, 6)]
    assert all((row["source"], row["target"]) == named[row["number"]] for row in table.values())  # type: ignore[index]
    assert all(row["category"] == "felis" for row in table.values())
    for row in (table["000000001"], table["000000002"]):  # the next crop is 12 pixels further right, 8 further down
        moved = np.subtract(row["given_points"], row["transferred_points"])
        assert np.abs(moved - (12, 8)).max() < 8
    assert pq.read_table(next(folder.rglob("rejects.parquet")))["pair_id"].to_pylist() == ["000000005"]
    assert not (folder / "scratch").exists() and not (folder / "begun").exists()
    with (photos / "pairs.csv").open("a", encoding="utf-8") as file:
        file.write(f"\n{cats[3]},{cats[0]},,")
    again = run(tmp_path / "w", "match-folder", "--data", str(photos), settings=settings)
    assert again.returncode == 2 and "holds an earlier match with other settings (dataset:" in again.stderr


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 240) -> None:
    deadline = time.time() + seconds
    while not condition():
        assert process.poll() is None, "the run ended before the kill"
        assert time.time() < deadline, "waited in vain"
        time.sleep(0.1)


@pytest.mark.chaos
def test_matching_killed_in_the_middle_goes_on_and_gives_the_same_bytes(
    photos: Path, tmp_path: Path, kill_tree: KillTree
) -> None:
    settings = ["shard.max_pairs=1"]
    arguments = ("match-collection", "--data", str(photos))
    undisturbed, killed = tmp_path / "a", tmp_path / "b"
    assert run(undisturbed, *arguments, settings=settings).returncode == 0
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command(killed, *arguments, settings=settings), stdout=log, stderr=log)
    commits = killed / "match-collection" / "match" / "photos" / "all" / "commits"
    wait_for(lambda: len(list(commits.glob("*.json"))) >= 3, process)
    kill_tree(process)
    done_before = {p.name: p.stat().st_mtime_ns for p in commits.glob("*.json")}
    assert 3 <= len(done_before) < 12
    assert run(killed, *arguments, settings=settings).returncode == 0
    assert done_before.items() <= {p.name: p.stat().st_mtime_ns for p in commits.glob("*.json")}.items()
    digests = []
    for work in (undisturbed, killed):
        listed = manifest(work / "match-collection" / "match" / "photos" / "all")["commits"]
        digests.append([(c["task"], c["files"]["part.parquet"]["sha256"]) for c in listed])  # type: ignore[attr-defined]
    assert digests[0] == digests[1]
    assert len({task for task, _ in digests[1]}) == 12


@pytest.mark.chaos
def test_training_killed_within_an_epoch_goes_on_with_fewer_workers(
    tmp_path: Path, quickstart: Path, kill_tree: KillTree
) -> None:
    """Four steps an epoch, a checkpoint after each: the result is the undisturbed one of the whole quickstart."""
    layers = searched_layers(quickstart)
    settings = [*TINY, "search=null", "match=null", "evaluate=null", f"train.gates_start={layers}"]
    with (tmp_path / "log").open("wb") as log:
        killed = command(tmp_path / "w", "quickstart", settings=[*settings, "train.checkpoint_steps=1"])
        process = subprocess.Popen(killed, stdout=log, stderr=log)
    storage = tmp_path / "w" / "quickstart" / "train" / "ray"
    wait_for(lambda: snapshot_reports(storage) >= 2, process)
    kill_tree(process)
    assert not (storage.parent / "MANIFEST.json").exists()
    steps = [json.loads(p.read_bytes())["step"] for p in storage.glob("checkpoint_*/progress.json")]
    assert any(steps), "the kill came within an epoch"
    done = run(tmp_path / "w", "quickstart", settings=[*settings, "train.num_workers=1"])
    assert done.returncode == 0, done.stderr[-2000:]
    assert_same_history(history(storage.parent), history(quickstart / "quickstart" / "train"))
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'w' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("quickstart")
    stages = [r.data.tags["dhpf.stage"] for r in client.search_runs([experiment.experiment_id])]
    assert sorted(stages) == ["shard", "train", "workflow"], "a resumed workflow stays one run"
    run_id = next(r.info.run_id for r in client.search_runs([experiment.experiment_id], "tags.`dhpf.stage` = 'train'"))
    first = [m for m in client.get_metric_history(run_id, "step/loss") if m.step == 0]
    assert len(first) == 1, "the first step was not learned again"


@pytest.mark.chaos
def test_training_goes_on_with_the_other_worker_when_a_machine_is_lost(
    tmp_path: Path, quickstart: Path, two_machines: Cluster, kill_tree: KillTree
) -> None:
    """The machine's node process is killed within an epoch, and no other takes its place."""
    settings = [*TINY, "search=null", "match=null", "evaluate=null", "train.checkpoint_steps=1"]
    settings += ["train.min_workers=1", f"train.gates_start={searched_layers(quickstart)}"]
    work = tmp_path / "w"
    full = command(work, "quickstart", "--address", two_machines.address, settings=settings)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(full, stdout=log, stderr=log, env=os.environ | ELASTIC)
    train = work / "quickstart" / "train"
    try:
        wait_for(lambda: snapshot_reports(train / "ray") >= 2, process)
        lost = two_machines.list_all_nodes()[-1]
        os.kill(lost.all_processes["raylet"][0].process.pid, signal.SIGKILL)
        assert process.wait(timeout=300) == 0, (tmp_path / "log").read_text()[-3000:]
    finally:
        if process.poll() is None:
            kill_tree(process)
    assert [entry["workers"] for entry in history(train)][-1] == 1
    assert_same_history(history(train), history(quickstart / "quickstart" / "train"))


@pytest.fixture
def two_machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head that only leads, and two nodes with one CPU each."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def searched_layers(work: Path) -> list[int]:
    found: list[int] = manifest(work / "quickstart" / "search")["record"]["model"]["layers"]  # type: ignore[index]
    return found


def history(train_folder: Path) -> list[dict[str, Any]]:
    progress = json.loads(next(train_folder.glob("data/model/*/progress.json")).read_bytes())
    entries: list[dict[str, Any]] = progress["history"]
    return entries


def assert_same_history(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        for name in ("loss", "val_pck", "selection_rates"):
            assert one[name] == pytest.approx(other[name], rel=1e-4), name


def test_weak_supervision_learns_from_categories_alone(tmp_path: Path) -> None:
    settings = [
        "shard.sources.photo-warps.options={views: 1}",
        *("train.supervision.kind=weak", "train.epochs=1", "train.batch_size=4"),
        *("search=null", "evaluate=null", "match=null", "train.gates_start=random"),
    ]
    done = run(tmp_path / "w", "quickstart", settings=settings)
    assert done.returncode == 0, done.stderr[-2000:]
    progress = json.loads(next((tmp_path / "w").glob("quickstart/train/data/model/*/progress.json")).read_bytes())
    (entry,) = progress["history"]
    assert 0 < entry["entropy_ratio"] < 3 and 0 < entry["val_pck"] <= 1


def snapshot_reports(storage: Path) -> int:
    """Reports that Ray Train has registered: only these are resumed from."""
    path = storage / "checkpoint_manager_snapshot.json"
    try:
        return int(json.loads(path.read_text())["current_report_index"])
    except (OSError, ValueError, KeyError):
        return 0


def test_shards_do_not_depend_on_how_they_were_made(photos: Path, tmp_path: Path) -> None:
    digests = []
    for cpus in ("1", "4"):
        work = tmp_path / cpus
        settings = ["shard.max_pairs=3", f"shard.resources.cpus={cpus}"]
        assert (
            run(work, "match-collection", "--data", str(photos), "--only", "shard", settings=settings).returncode == 0
        )
        commits = manifest(work / "match-collection" / "shard" / "photos" / "all")["commits"]
        digests.append([{n: f["sha256"] for n, f in c["files"].items()} for c in commits])  # type: ignore[attr-defined]
    assert digests[0] == digests[1]
