"""Refusals before a training starts, and whole trainings; see also test_workflow.py and test_learner.py."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from ray.train import Checkpoint

from dhpf.config import ModelConfig, SupervisionConfig
from dhpf.errors import InputError
from dhpf.model.global_batch import ALONE
from dhpf.pipelines.config import TrainConfig
from dhpf.pipelines.inputs.shard_set import ShardSet
from dhpf.pipelines.stages import train as train_stage
from dhpf.pipelines.stages.train import train
from dhpf.pipelines.tracking.journal import Journal, Writer
from dhpf.pipelines.tracking.run_log import RunLog
from dhpf.pipelines.training.learner import Learner
from dhpf.pipelines.training.pair_dataset import PairDataset
from dhpf.storage import location_of
from tests.pipelines.stage_outputs import manifest, parts

if TYPE_CHECKING:
    from tests.pipelines.conftest import Ended

Run = Callable[..., "Ended"]

FIXED = ModelConfig(selection="fixed", layers=(5,), projection="residual")
STRONG = TrainConfig(on="photos")
LOG = RunLog(Writer(location_of("nowhere"), 1, "worker"), "run")
SMALL = ModelConfig(projection_divisor=8, image_side=96)


@pytest.mark.parametrize(
    ("model", "config", "sentence"),
    [
        (ModelConfig(selection="all", projection="residual"), STRONG, "selection: 'all' has nothing to learn"),
        (ModelConfig(selection="fixed", layers=(5,)), STRONG, "'fixed' with model.projection 'residual'"),
        (FIXED, dataclasses.replace(STRONG, gates_start=(5,)), r"gates_start: \(5,\) with fixed layers"),
        (FIXED, dataclasses.replace(STRONG, projection_start="near-identity"), "has a start of its own"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(
    training_sets: tuple[ShardSet, ShardSet], model: ModelConfig, config: TrainConfig, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=sentence):
        train(model, config, *training_sets, tmp_path, LOG)
    assert not list(tmp_path.iterdir())


def test_validation_needs_pairs_also_where_learning_needs_no_keypoints(
    training_sets: tuple[ShardSet, ShardSet], tmp_path: Path
) -> None:
    config = dataclasses.replace(STRONG, supervision=SupervisionConfig(kind="contrastive"))
    train_set, val_set = training_sets
    bare = dataclasses.replace(val_set, shards=())
    with pytest.raises(InputError, match="no usable pair"):
        train(FIXED, config, train_set, dataclasses.replace(bare, record={"num_pairs": 0}), tmp_path, LOG)


def flip(path: Path) -> None:
    """Flips a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


class Reports:
    """Takes the place of Ray Train: keeps all checkpoints, and ends the worker with a report if asked to."""

    def __init__(self, folder: Path, ends_with: int | None = None) -> None:
        self.folder, self.ends_with = folder, ends_with
        self.metrics: list[dict[str, float]] = []

    def report(self, metrics: dict[str, float], checkpoint: Checkpoint) -> None:
        self.metrics.append(metrics)
        number = len(list(self.folder.glob("ray/checkpoint_*")))
        checkpoint.to_directory(str(self.folder / "ray" / f"checkpoint_{number:06d}"))
        if len(self.metrics) == self.ends_with:
            raise KeyboardInterrupt


def test_a_worker_reports_logs_and_goes_on_within_an_epoch(
    training_sets: tuple[ShardSet, ShardSet],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    titles: list[str] = []
    journal = Journal(location_of(tmp_path / "journal"))
    log = RunLog(Writer(journal.place, 1, "worker"), "run")
    board = SimpleNamespace(write=SimpleNamespace(remote=lambda title, done, total: titles.append(f"{done}/{total}")))
    config = TrainConfig(on="photos", batch_size=6, epochs=2, checkpoint_steps=1, learning_rate=0.05)

    def work(reports: Reports) -> train_stage.Worker:
        folder = location_of(reports.folder)
        task = train_stage.WorkerTask(SMALL, config, *training_sets, folder, log, board, str(tmp_path / "maps"))
        monkeypatch.setattr("ray.train.report", reports.report)
        data = [PairDataset(part) for part in training_sets]
        worker = train_stage.Worker(task, Learner(SMALL, config, *data, tmp_path / "maps", ALONE, 0))
        with contextlib.suppress(KeyboardInterrupt):
            worker.run()
        return worker

    whole = Reports(tmp_path / "whole")
    undisturbed = work(whole).state.history
    num_pairs = training_sets[0].num_pairs
    num_steps = -(-num_pairs // 6)
    assert [bool(metrics) for metrics in whole.metrics] == 2 * [*[False] * (num_steps - 1), True]
    assert [entry["epoch"] for entry in undisturbed] == [1, 2]
    assert [m["val_pck"] for m in whole.metrics if m] == [entry["val_pck"] for entry in undisturbed]
    assert titles == 2 * [f"{min(6 * n, num_pairs)}/{num_pairs}" for n in range(1, num_steps + 1)]
    records = [journal.read("000001/worker", n + 1) for n in range(journal.counts()["000001/worker"])]
    logged = [(record.facts["metrics"], record.facts["step"]) for record in records if record.kind == "metrics"]
    pictures = [record.facts["artifact"] for record in records if record.kind == "artifact"]
    assert [step for numbers, step in logged if "step/loss" in numbers] == [0, num_steps]
    assert [step for numbers, step in logged if "val_pck" in numbers] == [1, 2]
    assert pictures == [f"pictures/{n}.png" for n in ("first-step", "validation/epoch-001", "validation/epoch-002")]

    final = work(whole).learner.state()
    assert len(whole.metrics) == 2 * num_steps, "a complete training learns nothing more"
    work(Reports(tmp_path / "damaged", ends_with=num_steps + 1))
    newest = sorted(tmp_path.glob("damaged/ray/checkpoint_*"))[-1]
    flip(newest / "model.safetensors")
    fallen_back = Reports(tmp_path / "damaged")
    learned = work(fallen_back).learner.state()
    assert len(fallen_back.metrics) == num_steps, "it goes on from the checkpoint before the damaged one"
    assert f"{newest.name}/model.safetensors: damaged since it was written" in caplog.text
    assert all(torch.equal(value, learned[name]) for name, value in final.items())

    work(Reports(tmp_path / "killed", ends_with=2))
    again = Reports(tmp_path / "killed")
    resumed = work(again).state.history
    assert len(again.metrics) == 2 * num_steps - 2, "two steps are not learned again"
    for entry, other in zip(resumed, undisturbed, strict=True):
        for name in ("loss", "val_pck", "selection_rates"):
            assert entry[name] == pytest.approx(other[name], rel=1e-5), name


@pytest.mark.slow
def test_weak_supervision_learns_from_categories_alone(tmp_path: Path, run: Run) -> None:
    settings = [
        "shard.sources.photo-warps.options={views: 1}",
        *("train.supervision.kind=weak", "train.epochs=1", "train.batch_size=4", "model.image_side=96"),
        *("search=null", "evaluate=null", "match=null", "train.gates_start=random", "train.num_workers=1"),
    ]
    done = run(tmp_path / "w", "quickstart", settings=settings)
    assert done.returncode == 0, done.stderr[-2000:]
    progress = json.loads(next((tmp_path / "w").glob("quickstart/train/data/model/*/progress.json")).read_bytes())
    (entry,) = progress["history"]
    assert 0 < entry["entropy_ratio"] < 3 and 0 < entry["val_pck"] <= 1


@pytest.mark.slow
def test_a_folder_teaches_without_keypoints_and_is_matched_with_what_it_taught(
    cats_and_cups: Path, tmp_path: Path, run: Run
) -> None:
    small = ["model.image_side=160", "shard.sources.photo-warps.options={views: 1, keypoints: 6}"]
    jointly = ["evaluate.methods.jointly=trained", "evaluate.intermediates={jointly: 4}"]
    settings = [*small, *jointly, "train.epochs=2", "train.batch_size=4", "train.num_workers=1"]
    done = run(tmp_path, "learn-folder", "--data", str(cats_and_cups), settings=settings)
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
    matched = run(tmp_path, "match-folder", "--data", str(cats_and_cups), settings=settings)
    assert matched.returncode == 0, matched.stderr[-2000:]
    rows = parts(tmp_path / "match-folder" / "match" / "photos")
    mask = sum(1 << layer for layer in (5, 11, 15))
    assert len(rows) == 12 and all(r["model"] == "models:/dhpf/1" and r["layers"] == mask for r in rows)
    assert manifest(tmp_path / "match-folder" / "match" / "photos")["record"]["intermediates"] == 2
    cells = np.array(rows[0]["target_points"]) * 240 / rows[0]["target_size"] / 4
    assert np.abs(cells - cells.round()).max() > 0.1, "matched jointly, points lie between cells, too"


def test_workers_import_neither_what_only_the_driver_uses_nor_libraries_of_networks() -> None:
    """Every process that Ray starts pays for what its module imports, which for MLflow and charts takes seconds."""
    unneeded = ("mlflow", "matplotlib", "timm", "torchvision", "torch._dynamo", "skimage", "sklearn")
    script = f"""
import sys
import dhpf.pipelines.blocks.pool
import dhpf.pipelines.matching.pool
import dhpf.pipelines.stages.search
import dhpf.pipelines.stages.shard
import dhpf.pipelines.stages.train
print([name for name in {unneeded} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
