"""What cannot be trained is said before anything runs; trainings themselves are in test_workflow and test_learner."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dhpf.config import ModelConfig, SupervisionConfig
from dhpf.errors import InputError
from dhpf.pipelines.config import TrainConfig
from dhpf.pipelines.inputs.shard_set import ShardSet
from dhpf.pipelines.stages.train import train

FIXED = ModelConfig(selection="fixed", layers=(5,), projection="residual")
STRONG = TrainConfig(on="photos")


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
        train(model, config, *training_sets, tmp_path, ("", ""))
    assert not list(tmp_path.iterdir())


def test_validation_needs_pairs_also_where_learning_needs_no_keypoints(
    training_sets: tuple[ShardSet, ShardSet], tmp_path: Path
) -> None:
    config = dataclasses.replace(STRONG, supervision=SupervisionConfig(kind="contrastive"))
    train_set, val_set = training_sets
    bare = dataclasses.replace(val_set, shards=())
    with pytest.raises(InputError, match="no usable pair"):
        train(FIXED, config, train_set, dataclasses.replace(bare, record={"num_pairs": 0}), tmp_path, ("", ""))
