"""Whole workflows on a real Ray cluster with real processes, on little data; every stage does its real work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from mlflow.data import get_source
from PIL import Image

import dhpf.results
from dhpf.errors import InputError
from dhpf.pipelines import cluster
from dhpf.pipelines.__main__ import main
from dhpf.pipelines.stage_states import stage_states
from dhpf.pipelines.tracking.tracker import Tracker
from dhpf.pipelines.verification import parts_of
from dhpf.pipelines.workflow import WorkflowRun
from dhpf.pipelines.workflow_file import load_workflow
from dhpf.storage import location_of
from infra.flaky_proxy import busy, flaky_proxy
from tests.pipelines.stage_outputs import history, manifest, parts, wait_for

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

    from infra.s3_server import Bucket
    from tests.pipelines.conftest import Ended


WORKFLOWS = Path(__file__).parents[2] / "workflows.yaml"

TINY = [
    "model={backbone: efficientnet_lite0, projection_divisor: 1, exponent: 4}",  # more is learned than the gates
    "train.projection_start=near-identity",
    "shard.sources.photo-warps.options={views: 2, keypoints: 6}",
    "shard.max_pairs=4",
    "train.epochs=2",
    "train.batch_size=4",
    "train.learning_rate=0.1",
    "search={on: photo-warps/val, beam: 1, max_layers: 2, max_pairs: 2}",
    *("search.num_actors=1", "evaluate.num_actors=1", "match.num_actors=1"),  # several: stages/
    "evaluate.methods={dynamic: trained, searched: searched, last: {selection: last}}",
]


ELASTIC = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15"}  # a lost worker is not waited for longer
Run = Callable[..., "Ended"]
CommandLine = Callable[..., list[str]]
KillTree = Callable[[subprocess.Popen[bytes]], None]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory, command_line: CommandLine) -> Path:
    """The folder of a quickstart that a process of its own has run, on a cluster of its own."""
    work = tmp_path_factory.mktemp("work")
    full = command_line(work, "quickstart", settings=TINY)
    done = subprocess.run(full, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "registered as dhpf version 1" in done.stdout
    return work


def test_every_stage_is_complete_and_adds_up(quickstart: Path) -> None:
    folder = quickstart / "quickstart"
    expected = {"train": 16, "val": 4, "test": 10}
    for split, number in expected.items():
        record = manifest(folder / "shard" / "photo-warps" / split)["record"]
        assert record["num_pairs"] == number and record["num_rejected"] == 0
    progress = json.loads(next(folder.glob("train/data/model/*/progress.json")).read_bytes())
    assert [entry["epoch"] for entry in progress["history"]] == [1, 2]
    for method in ("dynamic", "searched", "last"):
        rows = parts(folder / "evaluate" / "photo-warps" / "test" / method / "predictions")
        assert sorted(row["number"] for row in rows) == list(range(10))
        assert all(len(row["predicted_keypoints"]) == len(row["target_keypoints"]) for row in rows)
    assert len(parts(folder / "match" / "photo-warps" / "test")) == 10


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_every_stage_runs_on_a_gpu_that_its_actors_share(tmp_path: Path, run: Run) -> None:
    shares = [f"{stage}.resources.gpus=0.2" for stage in ("search", "train", "evaluate", "match")]
    done = run(tmp_path, "quickstart", settings=[*TINY, *shares, "evaluate.intermediates={dynamic: 2}"])
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "quickstart"
    history = json.loads(next(folder.glob("train/data/model/*/progress.json")).read_bytes())["history"]
    assert history[-1]["val_pck"] > 0.5
    rows = parts(folder / "match" / "photo-warps" / "test")
    assert len(rows) == 10 and all(len(row["confidence"]) > 5 for row in rows)


def test_the_searched_layers_are_those_that_a_method_uses(quickstart: Path) -> None:
    folder = quickstart / "quickstart"
    sets = parts(folder / "search")
    best = max(sets, key=lambda row: row["pck"])
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
    read = {stage: {(d.dataset.name, d.tags[0].value) for d in r.inputs.dataset_inputs} for stage, r in runs.items()}
    assert read == {
        "workflow": set(),
        "shard": set(),
        "search": {("photo-warps/val", "evaluation")},
        "train": {("photo-warps/train", "training"), ("photo-warps/val", "validation")},
        "evaluate": {("photo-warps/test", "evaluation")},
        "match": {("photo-warps/test", "matching")},
    }
    whole = runs["workflow"].data
    assert {name.partition("/")[0] for name in whole.metrics} == {"shard", "search", "train", "evaluate", "match"}
    for name in ("train/val_pck", "search/pck", "evaluate/photo-warps/test/dynamic/PCK_0.1 image"):
        assert name in whole.metrics
    assert not [name for name in whole.metrics if "/class/" in name]
    assert "| dynamic | " in whole.tags["mlflow.note.content"] and whole.tags["dhpf.ray_job"]
    assert [file.path for file in client.list_artifacts(parent, "pictures/photo-warps/test")] == [
        "pictures/photo-warps/test/comparison.png"
    ]
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


def test_a_second_run_does_nothing(quickstart: Path, run: Run) -> None:
    before = {p: p.stat().st_mtime_ns for p in (quickstart / "quickstart").rglob("*") if p.is_file()}
    done = run(quickstart, "quickstart", settings=TINY)
    assert done.returncode == 0, done.stderr[-2000:]
    after = {p: p.stat().st_mtime_ns for p in (quickstart / "quickstart").rglob("*") if p.is_file()}
    assert before == after


HOLD_NO_RESULTS = {
    "mlflow.db": "MLflow's own store, which dhpf track sync fills from the journal",
    "mlartifacts": "the same",
    ".validate_storage_marker": "Ray's probe of the folder, empty",
    "checkpoint_manager_snapshot.json": "Ray's list of checkpoints, which is made anew from those that are whole",
}
"""Files and folders that `dhpf verify` does not read, and why not."""


@pytest.mark.slow
def test_a_flipped_byte_in_any_file_of_a_run_is_found(quickstart: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    shutil.copytree(quickstart, work, ignore=shutil.ignore_patterns(*HOLD_NO_RESULTS))
    run, silent = location_of(work / "quickstart"), []
    files = sorted(path for path in work.rglob("*") if path.is_file())
    kinds = {".tar", ".parquet", ".safetensors", ".png", ".md", ".json"}
    assert kinds <= {path.suffix for path in files}
    for path in files:
        whole = path.read_bytes()
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        parts = [part for part in parts_of(run) if path.is_relative_to(str(part.root))]
        for part in parts:
            part.verify(lambda size: None)
        places = {str(part.root / damage.key) for part in parts for damage in part.damage}
        silent += [path] if places.isdisjoint({str(path), str(path.parent)}) else []  # a checkpoint is one folder
        path.write_bytes(whole)
    assert silent == []


def test_another_configuration_is_refused_by_name(quickstart: Path, run: Run) -> None:
    done = run(quickstart, "quickstart", "--only", "train", settings=[*TINY, "train.learning_rate=0.5"])
    assert done.returncode == 2
    assert "config.learning_rate: 0.1 -> 0.5" in done.stderr and "--restart train" in done.stderr


def test_a_run_without_mlflow_ends_well_and_says_what_fills_it_in(
    cats_and_cups: Path,
    tmp_path: Path,
    tasks_here: None,
    no_cluster: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = ["run", "match-collection", "--file", str(WORKFLOWS), "--data", str(cats_and_cups), "--work", str(tmp_path)]
    assert main([*run, "--set", "shard.max_pairs=5", "--tracking", "http://127.0.0.1:9"]) == 0
    said = capsys.readouterr()
    assert "http://127.0.0.1:9 does not answer; when it does: dhpf track sync" in said.out
    assert said.err.count("the run goes on") == 1
    assert main(["track", "sync", "--work", str(tmp_path)]) == 0
    assert "match-collection: " in capsys.readouterr().out
    client = Tracker(tmp_path).client
    runs = client.search_runs([client.get_experiment_by_name("match-collection").experiment_id])
    assert {r.data.tags["dhpf.stage"]: r.info.status for r in runs} == dict.fromkeys(
        ("workflow", "shard", "match"), "FINISHED"
    )
    matched = next(r.info.run_id for r in runs if r.data.tags["dhpf.stage"] == "match")
    assert len(client.list_artifacts(matched, "pictures/photos/all")) == 3
    assert main(["track", "sync", "--work", str(tmp_path), "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"run": "match-collection", "entries": 0, "files": 0}]


def test_a_run_whose_settings_are_refused_starts_neither_ray_nor_mlflow(
    cats_and_cups: Path, tmp_path: Path, tasks_here: None, no_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ["run", "match-collection", "--file", str(WORKFLOWS), "--data", str(cats_and_cups), "--work"]
    assert main([*run, str(tmp_path), "--set", "shard.max_pairs=5"]) == 0
    (tmp_path / "mlflow.db").unlink()
    before = sorted(tmp_path.rglob("*"))

    def never(*_: object) -> None:
        raise AssertionError("Ray is started")

    monkeypatch.setattr(cluster, "ray_cluster", never)
    assert main([*run, str(tmp_path), "--set", "shard.max_pairs=6"]) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_scores_come_from_the_stored_predictions(quickstart: Path) -> None:
    """Scored again by hand from the Parquet, in original pixels scaled to the frame."""
    root = quickstart / "quickstart" / "evaluate" / "photo-warps" / "test" / "last"
    values = []
    for row in parts(root / "predictions"):
        scale = 240 / np.array(row["target_size"])
        offset = (np.array(row["predicted_keypoints"]) - np.array(row["target_keypoints"])) * scale
        values.append(np.mean(np.linalg.norm(offset, axis=1) <= 24))
    commits = manifest(root / "scores")["commits"]
    summary = commits[0]["info"]["summary"]
    assert summary["PCK@0.1 image"] == pytest.approx(np.mean(values))


@pytest.mark.chaos
@pytest.mark.slow
def test_training_killed_within_an_epoch_goes_on_with_fewer_workers(
    tmp_path: Path, quickstart: Path, kill_tree: KillTree, run: Run, command_line: CommandLine
) -> None:
    """Four steps an epoch, a checkpoint after each: the result is the undisturbed one of the whole quickstart."""
    layers = searched_layers(quickstart)
    settings = [*TINY, "search=null", "match=null", "evaluate=null", f"train.gates_start={layers}"]
    with (tmp_path / "log").open("wb") as log:
        killed = command_line(tmp_path / "w", "quickstart", settings=[*settings, "train.checkpoint_steps=1"])
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
@pytest.mark.slow
def test_training_goes_on_with_the_other_worker_when_a_machine_is_lost(
    tmp_path: Path, quickstart: Path, two_machines: Cluster, kill_tree: KillTree, command_line: CommandLine
) -> None:
    """The machine's node process is killed within an epoch, and no other takes its place."""
    settings = [*TINY, "search=null", "match=null", "evaluate=null", "train.checkpoint_steps=1"]
    settings += ["train.min_workers=1", f"train.gates_start={searched_layers(quickstart)}"]
    settings += ["train.kept_maps_mb=0"]  # no step is so fast that the training ends before the machine does
    work = tmp_path / "w"
    full = command_line(work, "quickstart", "--address", two_machines.address, settings=settings)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(full, stdout=log, stderr=log, env=os.environ | ELASTIC)
    train = work / "quickstart" / "train"
    try:
        wait_for(lambda: snapshot_reports(train / "ray") >= 1, process)
        lost = two_machines.list_all_nodes()[-1]
        kill_tree(lost.all_processes["raylet"][0].process)  # and the workers on it, as when a machine loses power
        assert process.wait(timeout=300) == 0, (tmp_path / "log").read_text()[-3000:]
    finally:
        if process.poll() is None:
            kill_tree(process)
    assert [entry["workers"] for entry in history(train)][-1] == 1
    assert_same_history(history(train), history(quickstart / "quickstart" / "train"))


def searched_layers(work: Path) -> list[int]:
    found: list[int] = manifest(work / "quickstart" / "search")["record"]["model"]["layers"]
    return found


def assert_same_history(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        for name in ("loss", "val_pck", "selection_rates"):
            assert one[name] == pytest.approx(other[name], rel=1e-4), name


def snapshot_reports(storage: Path) -> int:
    """The number of reports that Ray Train has registered; a training resumes only from these."""
    path = storage / "checkpoint_manager_snapshot.json"
    try:
        return int(json.loads(path.read_text())["current_report_index"])
    except (OSError, ValueError, KeyError):
        return 0


def test_a_workflow_in_a_bucket_gives_what_it_gives_in_a_folder(
    cats_and_cups: Path, tmp_path: Path, bucket: Bucket, tasks_here: None, no_cluster: None
) -> None:
    workflow = load_workflow(WORKFLOWS, "match-collection", ["shard.max_pairs=5"], cats_and_cups)
    tables = []
    for work in (location_of(tmp_path / "w"), location_of(bucket.uri("our work"))):
        outcome = WorkflowRun(workflow, work / "match-collection", Tracker(tmp_path / "w")).run()
        assert outcome.num_rejected == outcome.num_failed == 0
        assert all(state == "complete" for _, state in stage_states(workflow, work / "match-collection"))
        tables.append(dhpf.results.open(work / "match-collection" / "match").table())
    assert tables[0].num_rows == 12 and tables[0].equals(tables[1])


def test_the_run_of_a_workflow_says_what_came_of_it_and_that_of_a_stage_what_it_read(
    cats_and_cups: Path, tmp_path: Path, tasks_here: None, no_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DHPF_JOB", "match-collection-ab12-1")
    workflow = load_workflow(WORKFLOWS, "match-collection", ["shard.max_pairs=5"], cats_and_cups)
    folder, tracker = tmp_path / "w" / "match-collection", Tracker(tmp_path / "w")
    WorkflowRun(workflow, location_of(folder), tracker).run()
    experiment = tracker.client.get_experiment_by_name("match-collection")
    runs = {r.data.tags["dhpf.stage"]: r for r in tracker.client.search_runs([experiment.experiment_id])}
    whole = runs["workflow"].data
    assert whole.metrics["match/photos/all/num_pairs"] == whole.metrics["shard/photos/all/num_pairs"] == 12
    assert whole.tags["dhpf.folder"] == str(folder) and whole.tags["dhpf.job"] == "match-collection-ab12-1"
    note = whole.tags["mlflow.note.content"]
    assert note.startswith("**match-collection**: ") and "- stages: shard, match" in note
    assert "- match: photos/all: 12 pairs in " in note
    (found,) = runs["match"].inputs.dataset_inputs
    assert (found.dataset.name, [(tag.key, tag.value) for tag in found.tags]) == (
        "photos/all",
        [("mlflow.data.context", "matching")],
    )
    assert runs["match"].data.tags["dataset photos/all"].startswith(found.dataset.digest)
    assert get_source(found.dataset).uri == str(folder / "shard" / "photos" / "all")


def test_a_store_that_refuses_some_requests_for_now_changes_nothing(
    cats_and_cups: Path, tmp_path: Path, bucket: Bucket, tasks_here: None, no_cluster: None
) -> None:
    workflow = load_workflow(WORKFLOWS, "match-collection", ["shard.max_pairs=5"], cats_and_cups)
    endpoint = bucket.query.partition("endpoint_override=")[2].partition("&")[0]
    with flaky_proxy(endpoint, busy(0.15)) as (proxied, failures):
        work = location_of(bucket.uri("busy").replace(endpoint, proxied))
        outcome = WorkflowRun(workflow, work / "match-collection", Tracker(tmp_path / "w")).run()
    assert outcome.num_rejected == outcome.num_failed == 0 and failures.num_failed > 5
    table = dhpf.results.open(location_of(bucket.uri("busy")) / "match-collection" / "match").table()
    assert table.num_rows == 12 and set(table["status"].to_pylist()) == {"matched"}


def test_the_outcome_says_what_was_left_out_and_a_second_run_does_nothing(
    cats_and_cups: Path, tmp_path: Path, tasks_here: None, no_cluster: None
) -> None:
    whole = (cats_and_cups / "photos" / "cats" / "0 ü.v1.jpg").read_bytes()
    (cats_and_cups / "photos" / "cats" / "cut.jpg").write_bytes(whole[:2000])
    workflow = load_workflow(WORKFLOWS, "match-collection", ["shard.max_pairs=5"], cats_and_cups)
    folder = tmp_path / "w" / "match-collection"
    outcome = WorkflowRun(workflow, location_of(folder), Tracker(tmp_path / "w")).run()
    assert outcome.num_rejected == 4 and "cut.jpg: damaged or truncated" in outcome.first_rejection
    assert (outcome.num_failed, outcome.first_failure) == (0, "")
    shards, matched = outcome.reports
    assert (shards.stage, matched.stage) == ("shard", "match")
    assert "photos/all: 12 pairs, " in shards.lines[0] and ", 4 rejected" in shards.lines[0]
    assert "photos/all: 12 pairs in " in matched.lines[0] and len(parts(folder / "match/photos/all")) == 12
    assert all(state == "complete" for _, state in stage_states(workflow, location_of(folder)))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    again = WorkflowRun(workflow, location_of(folder), Tracker(tmp_path / "w")).run()
    assert (again.num_rejected, again.first_rejection) == (outcome.num_rejected, outcome.first_rejection)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    with pytest.raises(InputError, match="--only train: workflow match-collection has the stages shard, match"):
        WorkflowRun(workflow, location_of(folder), Tracker(tmp_path / "w")).run("train")
