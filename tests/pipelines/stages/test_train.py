"""What cannot be trained is said before anything runs; whole trainings; more in test_workflow, test_learner."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dhpf.config import ModelConfig, SupervisionConfig
from dhpf.errors import InputError
from dhpf.pipelines.config import TrainConfig
from dhpf.pipelines.inputs.shard_set import ShardSet
from dhpf.pipelines.stages.train import train
from tests.pipelines.stage_outputs import manifest, parts

if TYPE_CHECKING:
    from tests.pipelines.conftest import Ended

Run = Callable[..., "Ended"]

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


@pytest.mark.slow
def test_weak_supervision_learns_from_categories_alone(tmp_path: Path, run: Run) -> None:
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


@pytest.mark.slow
def test_a_folder_teaches_without_keypoints_and_is_matched_with_what_it_taught(
    cats_and_cups: Path, tmp_path: Path, run: Run
) -> None:
    small = ["model.image_side=160", "shard.sources.photo-warps.options={views: 1, keypoints: 6}"]
    jointly = ["evaluate.methods.jointly=trained", "evaluate.intermediates={jointly: 4}"]
    settings = [*small, *jointly, "train.epochs=2", "train.batch_size=4"]
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
