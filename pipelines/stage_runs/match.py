"""Runs the match stage of a workflow, or says what it would take."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from dhpf.config import ModelConfig
from dhpf.pairs.image_stores import Remark
from dhpf.pipelines.config import MatchConfig
from dhpf.pipelines.inputs.block_source import BlockSource
from dhpf.pipelines.inputs.collection import Collection, open_collection
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.pictures import correspondence_pictures
from dhpf.pipelines.progress import doing
from dhpf.pipelines.stage_runs.context import Stage, StageContext
from dhpf.pipelines.stages.match import estimate_run, match, plan_lines, planned_settings
from dhpf.pipelines.tracking.runs import StageRun
from dhpf.pipelines.workflow_file import search_model
from dhpf.planning.plan_summary import counted
from dhpf.results import reading_line
from dhpf.storage import Location

MODEL = "match.model"


def _run(config: MatchConfig, context: StageContext, run: StageRun) -> None:
    model = context.model(config.model, MODEL)
    run.set_tags({"model": str(model.identity())})
    for on in config.on:
        _match_one(config, context, run, context.shard_set(on), model)
    for name in config.collections:
        scratch = StageOutput(context.folder_of("match") / name).scratch
        with contextlib.ExitStack() as planned:
            with doing(f"planning the pairs of {name}"):
                pairs = planned.enter_context(_collection(config, context, name, model, scratch))
            _match_one(config, context, run, pairs, model, pairs.plan.remarks)


def _match_one(
    config: MatchConfig,
    context: StageContext,
    run: StageRun,
    pairs: BlockSource,
    model: ModelSource,
    remarks: Sequence[Remark] = (),
) -> None:
    name, folder = pairs.name, context.folder_of("match")
    run.log_datasets([context.dataset(pairs, "matching")])
    result = match(config, pairs, model, folder, run.log_metrics, context.retry)
    record = result.record
    num_pairs, seconds = int(record["num_pairs"]), float(record["seconds"])
    per_pair = result.num_described / max(num_pairs, 1)
    metrics = {
        "num_pairs": num_pairs,
        "num_failed": record["num_failed"],
        "pairs_per_second": num_pairs / max(seconds, 1e-9),
        "described_per_pair": per_pair,
    }
    named = {f"{name}/{metric}": value for metric, value in metrics.items()}
    run.log_metrics(named)
    context.outcome.measure("match", named)
    with doing(f"drawing pictures of {name}"):
        for title, picture in correspondence_pictures(result, pairs):
            run.log_picture(picture, f"pictures/{name}/{title}.png")
    context.outcome.report(
        "match",
        {
            "on": name,
            "folder": str(folder / name),
            "seconds": seconds,
            "num_rejected": record["num_rejected"],
            "remarks": {remark.text: remark.count for remark in remarks},
            **metrics,
        },
        f"{name}: {num_pairs} pairs in {seconds:.0f} s, {per_pair:.3f} images described per pair, in {folder / name}",
        *map(str, remarks),
        reading_line(folder / name),
    )
    context.outcome.reject(int(record["num_rejected"]), record["first_rejection"])
    context.outcome.fail(int(record["num_failed"]), record["first_failure"])


def estimates(config: MatchConfig, context: StageContext) -> dict[str, list[str]]:
    """Estimates for each collection what matching it takes; writes nothing.

    Where a stage of the workflow has not made the model yet, the lines say what is known without it.
    """
    if not config.collections:
        return {}
    stage = context.stage_to_come(config.model)
    model = context.model(config.model, MODEL) if stage is None else _untrained(stage, context)
    found = {}
    for name in config.collections:
        with _collection(config, context, name, model) as collection:
            found[name] = _estimate(config, collection, model, stage)
    return found


def _untrained(stage: str, context: StageContext) -> ModelSource:
    """A model whose features are as large as those of the model that a stage will make, or, of a search, larger."""
    return ModelSource(config=search_model(context.workflow) if stage == "search" else context.workflow.model)


def _estimate(config: MatchConfig, collection: Collection, model: ModelSource, stage: str | None) -> list[str]:
    """The lines for one collection.

    Args:
        model: the one that will match, or `_untrained` where it is still to come.
        stage: the one that is still to make the model, if any.
    """
    if stage == "search":
        images, pairs = counted(len(collection.plan.images), "image"), counted(collection.num_pairs, "pair")
        return [f"{images}, {pairs}", "blocks, hours and price depend on the layers that the search stage will find"]
    if stage == "train" and model.config is not None and model.config.has_gates:
        return [*plan_lines(collection), "hours and price depend on the layers that the train stage's gates will open"]
    return estimate_run(config, collection, model)  # of fixed layers a trained model takes as long as an untrained one


def _collection(
    config: MatchConfig, context: StageContext, name: str, model: ModelSource, scratch: Location | None = None
) -> AbstractContextManager[Collection]:
    return open_collection(
        name,
        config.collections[name],
        model.bytes_per_image(config.features),
        scratch,
        max_pairs_before=StageOutput(context.folder_of("match") / name).planned("max_pairs"),
        keep_together=config.intermediates > 0,
    )


def _settings(config: MatchConfig, context: StageContext) -> Mapping[str, Mapping[str, Any]]:
    model = context.planned_model(config.model, MODEL)
    return {name: planned_settings(config, name) | model for name in (*config.on, *config.collections)}


def _models(config: MatchConfig, context: StageContext) -> Iterable[ModelConfig]:
    return context.untrained_models({MODEL: config.model})


MATCH = Stage(run=_run, settings=_settings, models=_models)
