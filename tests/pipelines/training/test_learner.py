"""Training steps on several real processes give the same losses as on one, also after an interruption."""

from __future__ import annotations

import dataclasses
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from dhpf.config import ModelConfig, SupervisionConfig
from dhpf.model.global_batch import ALONE, Workers
from dhpf.pipelines.config import Resources, TrainConfig
from dhpf.pipelines.inputs.shard_set import ShardSet
from dhpf.pipelines.training.all_workers import all_workers
from dhpf.pipelines.training.learner import Learner
from dhpf.pipelines.training.pair_dataset import PairDataset, epoch_steps

Sets = tuple[ShardSet, ShardSet]
MODEL = ModelConfig(projection_divisor=8, image_side=96)


RESIDUAL = ModelConfig(projection="residual", image_side=96)
FIXED = ModelConfig(selection="fixed", layers=(5, 11), projection="residual", image_side=96)


def config_of(kind: str, batch_size: int) -> TrainConfig:
    supervision = SupervisionConfig(kind=kind)  # type: ignore[arg-type]
    return TrainConfig(on="photos", supervision=supervision, batch_size=batch_size, learning_rate=0.05)


def without_keypoints(shards: ShardSet) -> ShardSet:
    """The same shard set without thresholds, so that its keypoints are not used."""
    return dataclasses.replace(shards, thresholds=())


STEPS = {"strong": 5, "weak": 2, "contrastive": 3}
BATCH_SIZES = {"strong": 5, "weak": 4, "contrastive": 5}
KINDS = {2: ("strong", "contrastive"), 3: ("strong", "weak")}
"""Supervision of the trainings that so many processes share."""


def trained(kind: str, training_sets: Sets, folder: Path, workers: Workers, rank: int) -> dict[str, Any]:
    """Takes some steps; gives the losses, the PCK and the weights' norm."""
    if kind == "contrastive":
        training_sets = without_keypoints(training_sets[0]), training_sets[1]
    config = config_of(kind, BATCH_SIZES[kind])
    data = [PairDataset(s) for s in training_sets]
    learner = Learner(FIXED if kind == "contrastive" else MODEL, config, *data, folder / kind, workers, rank)
    order = [(e, s) for e in range(9) for s in epoch_steps(len(data[0]), config.batch_size, config.seed, e)]
    losses = [learner.step(learner.load(step, epoch)).terms["loss"] for epoch, step in order[: STEPS[kind]]]
    pck = learner.mean_pck(learner.validate())
    norm = sum(float(p.double().square().sum()) for p in learner.learned.values())
    return {"losses": losses, "pck": pck, "norm": norm}


def train_in_process(rank: int, count: int, port: int, training_sets: Sets, folder: Path) -> None:
    """Runs in each of `count` processes; the first one writes what came of the trainings."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=count)
    found = {kind: trained(kind, training_sets, folder, all_workers(), rank) for kind in KINDS[count]}
    if rank == 0:
        (folder / f"{count}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def shared(training_sets: Sets, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What comes of trainings that processes share, by their number and the kind of supervision."""
    folder = tmp_path_factory.mktemp("shared")
    for count in KINDS:
        mp.spawn(train_in_process, (count, free_port(), training_sets, folder), nprocs=count)
    return {count: json.loads((folder / f"{count}.json").read_text()) for count in KINDS}


@pytest.mark.parametrize("kind", STEPS)
def test_any_number_of_processes_learns_the_same(
    training_sets: Sets, shared: dict[int, dict[str, Any]], kind: str, tmp_path: Path
) -> None:
    alone = trained(kind, training_sets, tmp_path, ALONE, 0)
    assert len(set(alone["losses"])) == STEPS[kind]
    for other in [found[kind] for found in shared.values() if kind in found]:
        assert other["losses"] == pytest.approx(alone["losses"], rel=1e-4)
        assert other["pck"] == pytest.approx(alone["pck"]) and other["norm"] == pytest.approx(alone["norm"], rel=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("kind", "steps"), [("strong", 6), ("weak", 2), ("contrastive", 6)])
def test_a_gpu_learns_what_a_cpu_learns(training_sets: Sets, kind: str, steps: int, tmp_path: Path) -> None:
    model = FIXED if kind == "contrastive" else MODEL
    curves = []
    for gpus in (0, 1):
        config = dataclasses.replace(config_of(kind, 4), resources=Resources(gpus=gpus))
        data = [PairDataset(s) for s in training_sets]
        learner = Learner(model, config, *data, tmp_path / str(gpus), ALONE, 0)
        order = [s for epoch in range(4) for s in epoch_steps(len(data[0]), 4, 0, epoch)][:steps]
        curves.append([learner.step(learner.load(step, 0)).terms["loss"] for step in order])
        curves[-1].append(learner.mean_pck(learner.validate()))
    assert curves[1][:-1] == pytest.approx(curves[0][:-1], rel=1e-3)
    assert curves[1][-1] == pytest.approx(curves[0][-1], abs=0.03)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_finds_matches_that_teach_without_keypoints(training_sets: Sets, tmp_path: Path) -> None:
    config = dataclasses.replace(config_of("contrastive", 4), resources=Resources(gpus=1))
    data = PairDataset(without_keypoints(training_sets[0]))
    learner = Learner(FIXED, config, data, PairDataset(training_sets[1]), tmp_path, ALONE, 0)
    loaded = learner.load([0, 1, 2, 3], 0)
    assert loaded.keypoints is not None and loaded.keypoints.valid.any(dim=1).all()
    losses = [learner.step(loaded).terms["loss"] for _ in range(6)]
    assert losses[-1] < losses[0] - 0.05


def learner_of(training_sets: Sets, config: TrainConfig, maps: Path) -> Learner:
    return Learner(MODEL, config, *(PairDataset(s) for s in training_sets), maps, ALONE, 0)


def test_keeping_maps_changes_nothing(training_sets: Sets, tmp_path: Path) -> None:
    config = config_of("strong", 4)
    steps = epoch_steps(training_sets[0].num_pairs, 4, 0, 0)[:2]
    curves = []
    for attempt in range(2):
        learner = learner_of(training_sets, config, tmp_path / "maps")
        curves.append([learner.step(learner.load(step, 0)).terms for step in steps])
        assert bool(learner.maps.num_computed) == (attempt == 0)
    assert curves[0] == curves[1]


def test_gates_alone_are_learned_over_the_backbones_own_maps(training_sets: Sets, tmp_path: Path) -> None:
    model = ModelConfig(projection="none", image_side=96)
    supervision = SupervisionConfig(selection_weight=0)
    config = TrainConfig(on="photos", supervision=supervision, batch_size=4, gates_start=(5, 8), learning_rate=0.5)
    learner = Learner(model, config, *(PairDataset(s) for s in training_sets), tmp_path / "maps", ALONE, 0)
    assert learner.learned and all(name.startswith("selector.") for name in learner.learned)
    before = learner.state()
    found = learner.step(learner.load([0, 1, 2, 3], 0))
    assert found.terms["loss"] == pytest.approx(found.terms["cross_entropy"])
    assert found.open_shares[[5, 8]].mean() > found.open_shares.mean()
    after = learner.state()
    assert any(not torch.equal(before[name], after[name]) for name in learner.learned)
    assert all(0 <= checked.pck <= 1 for checked in learner.validate())


def test_divergence_names_the_pairs(training_sets: Sets, tmp_path: Path) -> None:
    learner = learner_of(training_sets, config_of("strong", 4), tmp_path / "maps")
    with torch.no_grad():
        next(iter(learner.learned.values())).fill_(torch.nan)
    loaded = learner.load([3, 1], 0)
    names = ", ".join(learner.train_data.record(n).pair_id for n in (3, 1))
    with pytest.raises(RuntimeError, match=f"diverged.*{names}"):
        learner.step(loaded)


def test_keypoints_are_learned_where_there_are_some_and_own_matches_where_not(
    training_sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learners = [
        Learner(
            RESIDUAL, config_of("contrastive", 4), PairDataset(s), PairDataset(training_sets[1]), tmp_path, ALONE, 0
        )
        for s in (training_sets[0], without_keypoints(training_sets[0]))
    ]
    told, untold = (learner.load([0, 1], 0).keypoints for learner in learners)
    assert told is not None and untold is not None
    known = learners[0].train_data.keypoints([0, 1])
    assert known is not None and torch.equal(told.source, known.source) and torch.equal(told.target, known.target)
    assert untold.valid.any(dim=1).all() and untold.source.shape[1] != told.source.shape[1]
    monkeypatch.setattr("dhpf.pipelines.training.learner.match_own_maps", None)  # they are found once
    again = learners[1].load([1, 0], 1).keypoints
    assert again is not None and torch.equal(again.target.flip(0), untold.target)


@pytest.mark.parametrize("model", [RESIDUAL, FIXED])
def test_own_matches_teach_projections_and_likeness_grows(
    training_sets: Sets, model: ModelConfig, tmp_path: Path
) -> None:
    data = PairDataset(without_keypoints(training_sets[0]))
    learner = Learner(model, config_of("contrastive", 4), data, PairDataset(training_sets[1]), tmp_path, ALONE, 0)
    loaded = learner.load([0, 1, 2, 3], 0)
    found = [learner.step(loaded) for _ in range(6)]
    assert found[-1].terms["contrastive"] < found[0].terms["contrastive"] - 0.05
    assert any(value.any() for name, value in learner.network.named_parameters() if "mix.weight" in name)
    if model is FIXED:
        assert found[0].open_shares.nonzero().flatten().tolist() == [5, 11]
        assert all(name.startswith("projections.") for name in learner.learned)


def test_fixed_layers_learn_from_keypoints_as_the_paper_does(training_sets: Sets, tmp_path: Path) -> None:
    learner = Learner(FIXED, config_of("strong", 4), *(PairDataset(s) for s in training_sets), tmp_path, ALONE, 0)
    before = learner.state()
    learner.step(learner.load([0, 1, 2, 3], 0))
    assert any(not torch.equal(before[name], after) for name, after in learner.state().items())
