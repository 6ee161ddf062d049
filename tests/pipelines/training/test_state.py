"""A training that is resumed from a checkpoint takes the same steps as one that was never interrupted."""

from pathlib import Path

import pytest
import torch

from dhpf.config import ModelConfig
from dhpf.model.global_batch import ALONE
from dhpf.pipelines.config import TrainConfig
from dhpf.pipelines.inputs.shard_set import ShardSet
from dhpf.pipelines.training.learner import Learner
from dhpf.pipelines.training.pair_dataset import PairDataset, epoch_steps
from dhpf.pipelines.training.state import TrainingState


@pytest.fixture
def learners(training_sets: tuple[ShardSet, ShardSet], tmp_path: Path) -> list[Learner]:
    config = TrainConfig(on="photos", batch_size=4, learning_rate=0.05)
    data = [PairDataset(s) for s in training_sets]
    model = ModelConfig(projection_divisor=8, image_side=96)
    return [Learner(model, config, *data, tmp_path / "maps", ALONE, 0) for _ in range(2)]


def learn(learner: Learner, state: TrainingState, num_steps: int) -> list[float]:
    steps = epoch_steps(len(learner.train_data), 4, 0, state.epoch)
    losses = []
    for step in steps[state.step : state.step + num_steps]:
        objective = learner.step(learner.load(step, state.epoch))
        state.add(objective, step, 0.5)
        losses.append(objective.terms["loss"])
    return losses


def test_a_training_goes_on_in_the_middle_of_an_epoch(learners: list[Learner], tmp_path: Path) -> None:
    undisturbed, stopped = learners
    state = TrainingState.start(undisturbed)
    whole = learn(undisturbed, state, 4)
    expected = state.end_epoch(0.5, undisturbed)

    before = TrainingState.start(stopped)
    first = learn(stopped, before, 2)
    with before.written(stopped) as folder:
        torch.nn.init.zeros_(next(iter(stopped.learned.values())))  # what was not written is lost
        resumed = TrainingState.read(folder, stopped)
    assert (resumed.epoch, resumed.step, resumed.num_pairs) == (0, 2, 8)
    assert first + learn(stopped, resumed, 2) == whole
    assert resumed.end_epoch(0.5, stopped) == expected
    for name, value in undisturbed.state().items():
        assert torch.equal(value, stopped.state()[name]), name


def test_the_best_epoch_is_kept_beside_the_current_one(learners: list[Learner]) -> None:
    learner, other = learners
    state = TrainingState.start(learner)
    learn(learner, state, 1)
    state.end_epoch(0.8, learner)
    best = learner.state()
    learn(learner, state, 1)
    entry = state.end_epoch(0.7, learner)
    assert (state.best_epoch, state.best_pck, entry["epoch"]) == (1, 0.8, 2)
    current = learner.state()
    with state.written(learner) as folder:
        resumed = TrainingState.read(folder, other)
    assert [e["val_pck"] for e in resumed.history] == [0.8, 0.7]
    assert all(torch.equal(v, resumed.best_state[k]) for k, v in best.items())
    assert all(torch.equal(v, other.state()[k]) for k, v in current.items())
