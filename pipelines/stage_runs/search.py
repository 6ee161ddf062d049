"""Runs the search stage of a workflow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dhpf.config import ModelConfig
from dhpf.pipelines.config import SearchConfig
from dhpf.pipelines.layer_search.beam import Level, best_set
from dhpf.pipelines.pictures import search_picture
from dhpf.pipelines.stage_runs.context import Stage, StageContext
from dhpf.pipelines.stages.search import planned_settings, search
from dhpf.pipelines.tracking.runs import StageRun
from dhpf.pipelines.workflow_file import search_model


def _run(config: SearchConfig, context: StageContext, run: StageRun) -> None:
    shards = context.shard_set(config.on)
    run.log_datasets([context.dataset(shards, "evaluation")])

    def log_level(level: Level) -> None:
        best = best_set([level])
        run.log_metrics({"best_pck": best.pck, "num_sets": len(level)}, step=len(best.layers))

    found = search(search_model(context.workflow), config, shards, context.folder_of("search"), log_level)
    run.log_text(found.csv(), "sets.csv")
    run.log_picture(search_picture(found), "pictures/search.png")
    layers = ", ".join(map(str, found.best.layers))
    run.set_tags({"layers": layers})
    context.outcome.measure("search", {"pck": found.best.pck})
    context.outcome.report(
        "search",
        {"on": found.on, "layers": list(found.best.layers), "metric": found.metric, "pck": found.best.pck},
        f"{found.on}: best of {found.num_sets} sets on {found.num_pairs} pairs is {layers} "
        f"({found.metric} {100 * found.best.pck:.1f})",
    )


def _settings(config: SearchConfig, context: StageContext) -> Mapping[str, Mapping[str, Any]]:
    return {".": planned_settings(search_model(context.workflow), config)}


def _models(config: SearchConfig, context: StageContext) -> Iterator[ModelConfig]:
    yield search_model(context.workflow)


SEARCH = Stage(run=_run, settings=_settings, models=_models)
