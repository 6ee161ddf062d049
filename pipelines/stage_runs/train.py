"""Runs the train stage of a workflow, and registers what it learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dhpf.config import ModelConfig
from dhpf.errors import InputError
from dhpf.pipelines.config import TrainConfig
from dhpf.pipelines.inputs.shard_set import ShardSet, joined
from dhpf.pipelines.pictures import search_baselines
from dhpf.pipelines.stage_runs.context import Stage, StageContext
from dhpf.pipelines.stages.search import complete_search, searched_model
from dhpf.pipelines.stages.train import planned_settings, train
from dhpf.pipelines.tracking.model_card import ModelCard, TrainingData
from dhpf.pipelines.tracking.runs import StageRun
from dhpf.pipelines.training.pictures import training_pictures


def _run(config: TrainConfig, context: StageContext, run: StageRun) -> None:
    workflow = context.workflow
    parts = [context.shard_set(on) for on in config.train_sets]
    validation = context.shard_set(config.validation_set)
    run.log_datasets([context.dataset(part, "training") for part in parts])
    run.log_datasets([context.dataset(validation, "validation")])
    config = _with_found_layers(config, context)
    trained = train(workflow.model, config, joined(parts), validation, context.folder_of("train"), run.for_workers())
    metric = f"PCK@{config.supervision.alpha:g} {validation.thresholds[0]}"
    for name, picture in training_pictures(trained.history, metric, _baselines(context, validation, metric)):
        run.log_picture(picture, f"pictures/{name}.png")
    run.log_file(trained.checkpoint, "checkpoint")
    best = trained.history[trained.best_epoch - 1]
    metrics = {"val_pck": best["val_pck"], "epoch": trained.best_epoch}
    context.outcome.measure("train", metrics)
    card = _model_card(context, config, (*parts, validation), metrics)
    version = run.register(workflow.registered_model, trained.checkpoint, card)
    lines = [
        f"best of {len(trained.history)} epochs is {trained.best_epoch} "
        f"(validation PCK {100 * best['val_pck']:.1f}): {trained.checkpoint}",
        f"registered as {workflow.registered_model} version {version}"
        if version
        else f"not registered as {workflow.registered_model} yet: MLflow does not answer; dhpf track sync does it then",
    ]
    if workflow.promotion is not None:
        lines.append(f"dhpf models promote {workflow.name} makes it champion if it passes")
    facts = {"checkpoint": str(trained.checkpoint), "model": workflow.registered_model}
    if version:
        facts["version"] = version
    context.outcome.report("train", facts | metrics, *lines)


def _with_found_layers(config: TrainConfig, context: StageContext) -> TrainConfig:
    if config.gates_start != "searched":
        return config
    found = searched_model(context.folder_of("search"))
    return dataclasses.replace(config, gates_start=found.fixed_layers)


def _baselines(context: StageContext, validation: ShardSet, metric: str) -> dict[str, float]:
    """The search's results on the validation pairs in this metric, to compare a training with."""
    config = context.workflow.search
    if config is None or config.on != validation.name:
        return {}
    found = complete_search(config, validation, context.folder_of("search"))
    return {} if found is None or found.metric != metric else search_baselines(found)


def _model_card(
    context: StageContext, config: TrainConfig, sets: Sequence[ShardSet], metrics: Mapping[str, float]
) -> ModelCard:
    assert context.workflow.shard is not None
    kinds = {name: source.kind for name, source in context.workflow.shard.sources.items()}
    data = [TrainingData(s.name, kinds[s.name.split("/")[0]], s.num_pairs, s.digest) for s in sets]
    return ModelCard(context.workflow.model, dataclasses.asdict(config), data, metrics)


def _settings(config: TrainConfig, context: StageContext) -> Mapping[str, Mapping[str, Any]]:
    try:
        return {".": planned_settings(context.workflow.model, _with_found_layers(config, context))}
    except InputError:  # the search that finds the layers is still to run
        return {}


def _models(config: TrainConfig, context: StageContext) -> Iterator[ModelConfig]:
    yield context.workflow.model


TRAIN = Stage(run=_run, settings=_settings, models=_models)
