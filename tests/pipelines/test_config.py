"""The one declaration of which settings decide a stage's result, which plans and MLflow runs are compared by."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dhpf.manifest import canonical_json
from dhpf.pipelines.config import (
    STAGES,
    CollectionConfig,
    EvaluateConfig,
    Workflow,
    deciding_settings,
    deciding_settings_and_inputs,
    deciding_settings_of_scores,
)
from dhpf.pipelines.stages import evaluate, match, search, shard, train
from dhpf.pipelines.workflow import STAGE_RUNS
from dhpf.pipelines.workflow_file import load_workflow, search_model

FILE = Path(__file__).parents[2] / "workflows.yaml"
MODEL = {
    "backbone": "efficientnet_lite0",
    "exponent": 4,
    "hough_bins": "current",
    "image_side": 240,
    "layers": [],
    "projection": "none",
    "projection_divisor": 8,
    "selection": "dynamic",
    "weights": None,
}
SUPERVISION = {"alpha": 0.1, "kind": "strong", "selection_rate": 0.5, "selection_weight": 0.1}
TRAINING = {
    "batch_size": 8,
    "epochs": 4,
    "gates_start": "searched",
    "learning_rate": 0.02,
    "momentum": 0.5,
    "on": "photo-warps",
    "precision": "float32",
    "projection_start": "random",
    "seed": 0,
    "supervision": SUPERVISION,
    "validate_on": None,
}
SET = "photo-warps/test"


def quickstart(*settings: str) -> Workflow:
    return load_workflow(FILE, "quickstart", settings, Path())


def as_stored(plan: Any) -> Any:
    return json.loads(canonical_json(plan))


def test_plans_say_what_those_of_earlier_outputs_say() -> None:
    """So that an output that was complete stays so: every name and value is as it was first written."""
    flow = quickstart("evaluate.intermediates={dynamic: 2}")
    assert flow.shard and flow.search and flow.train and flow.evaluate and flow.match
    assert as_stored(shard.planned_settings(flow.shard, flow.shard.sources["photo-warps"], "val")) == {
        "stage": "shard",
        "kind": "photo_warps",
        "options": {},
        "split": "val",
        "max_pairs": 32,
        "max_images": 64,
        "store": None,
    }
    assert as_stored(search.planned_settings(search_model(flow), flow.search)) == {
        "stage": "search",
        "on": "photo-warps/val",
        "model": {"config": MODEL | {"selection": "all", "exponent": 3}},
        "config": {"beam": 2, "max_layers": 4, "max_pairs": 16, "alpha": 0.1},
    }
    training = as_stored(train.planned_settings(flow.model, flow.train))
    assert training == {"stage": "train", "model": MODEL, "config": TRAINING}
    assert evaluate.planned_settings(flow.evaluate, SET, "all") == {"stage": "evaluate", "on": SET}
    jointly = evaluate.planned_settings(flow.evaluate, SET, "dynamic")
    assert jointly == {"stage": "evaluate", "on": SET, "intermediates": 2}
    matching = {"stage": "match", "matches_per_pair": 50, "flow": False, "features": "float32"}
    assert match.planned_settings(flow.match, SET) == {"on": SET} | matching
    photos = {"photos": CollectionConfig("x", max_pairs=500)}
    settings = dataclasses.replace(flow.match, collections=photos, intermediates=3)
    of_photos = {"select": "within-folders", "reference": None, "reach": None, "max_pairs": 500}
    found = match.planned_settings(settings, "photos")
    assert found == {"on": "photos", "intermediates": 3} | matching | of_photos


@pytest.mark.parametrize(
    ("stage", "setting"),
    [
        ("shard", "resources={cpus: 2}"),
        ("search", "engine=torch"),
        ("search", "num_actors=1"),
        ("train", "num_workers=1"),
        ("train", "kept_maps_mb=0"),
        ("evaluate", "batch_size=2"),
        ("evaluate", "resources.gpus=0.5"),
        ("match", "engine=torch"),
        ("match", "batch_size=3"),
        ("match", "price_per_hour=2"),
        ("match", "min_actors=1"),
    ],
)
def test_how_a_stage_runs_decides_nothing(stage: str, setting: str) -> None:
    before, after = (flow.stages[stage] for flow in (quickstart(), quickstart(f"{stage}.{setting}")))
    assert before != after
    assert deciding_settings_and_inputs(before) == deciding_settings_and_inputs(after)


@pytest.mark.parametrize(
    ("stage", "setting"),
    [
        ("shard", "max_pairs=5"),
        ("search", "model={exponent: 2}"),
        ("train", "supervision.alpha=0.2"),
        ("train", "batch_size=4"),
        ("evaluate", "methods.more={selection: all}"),
        ("match", "model={selection: all}"),
        ("match", "collections.photos={root: a, reach: 2, select: neighbours}"),
    ],
)
def test_inputs_and_settings_decide(stage: str, setting: str) -> None:
    before, after = (flow.stages[stage] for flow in (quickstart(), quickstart(f"{stage}.{setting}")))
    assert deciding_settings_and_inputs(before) != deciding_settings_and_inputs(after)


def test_inputs_stand_in_plans_by_digest_alone() -> None:
    flow = quickstart()
    assert set(deciding_settings(flow.stages["evaluate"])) == {"alphas", "intermediates"}
    assert set(deciding_settings(flow.stages["shard"])) == {"max_pairs", "max_images", "store"}


def test_a_new_setting_of_the_evaluation_is_in_plans_without_being_named_there() -> None:
    @dataclass(frozen=True)
    class Wider(EvaluateConfig):
        least_confidence: float = 0.5

    config = Wider(on=(SET,), methods={"all": {}, "last": {}}, intermediates={"last": 0})
    assert evaluate.planned_settings(config, SET, "last") == {"stage": "evaluate", "on": SET, "least_confidence": 0.5}
    assert deciding_settings_of_scores(config) == {"alphas": (0.05, 0.1, 0.15)}


def test_every_stage_is_run_by_the_table_of_stages() -> None:
    assert tuple(STAGE_RUNS) == STAGES == tuple(quickstart().stages)


def test_what_a_stage_reserves_reads_and_gives() -> None:
    stages = quickstart().stages
    processes = {name: config.processes for name, config in stages.items()}
    assert processes == {"shard": (1, 1), "search": (2, 2), "train": (2, 2), "evaluate": (2, 2), "match": (2, 2)}
    elastic = quickstart("match.min_actors=1", "train.num_workers=5", "train.min_workers=2").stages
    assert elastic["match"].processes == (1, 2) and elastic["train"].processes == (2, 5)
    assert stages["train"].shard_sets == ("photo-warps/train", "photo-warps/val")
    assert stages["evaluate"].outputs[f"last on {SET}"].folder == f"{SET}/last/predictions"
