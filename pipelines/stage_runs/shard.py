"""Runs the shard stage of a workflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dhpf.pipelines.config import ShardConfig
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.stage_runs.context import Stage, StageContext
from dhpf.pipelines.stages.shard import planned_settings, shard
from dhpf.pipelines.tracking.runs import StageRun

COUNTS = ("num_pairs", "num_images", "num_rejected", "num_bytes")


def _run(config: ShardConfig, context: StageContext, run: StageRun) -> None:
    made_of = {name: _made_of(name, context) for name in config.given_sets} if context.retry else {}
    retries = {name: context.retry for name, outputs in made_of.items() if context.retry and not outputs}
    for shards in shard(config, context.folder_of("shard"), retries):
        record = shards.record
        remarks = []
        if made_of.get(shards.name) and int(record["num_rejected"]):
            remarks.append(
                f"{shards.name}: its rejected pairs are not tried again, because {made_of[shards.name][0]} was made of "
                "it; give another --name to begin anew"
            )
        context.outcome.report(
            "shard",
            {"shard_set": shards.name, "num_shards": len(shards.shards)} | {count: record[count] for count in COUNTS},
            f"{shards.name}: {record['num_pairs']} pairs, {record['num_images']} images in "
            f"{len(shards.shards)} shards, {record['num_rejected']} rejected",
            *remarks,
        )
        context.outcome.reject(int(record["num_rejected"]), record["first_rejection"])
        counts = {f"{shards.name}/{count}": float(record[count]) for count in COUNTS}
        run.log_metrics(counts)
        context.outcome.measure("shard", counts)
        run.set_tags({f"dataset {shards.name}": shards.digest})


def _made_of(name: str, context: StageContext) -> list[str]:
    """The outputs of later stages that were begun with a shard set: they would not fit one that holds more pairs."""
    return [
        f"{stage} {title}"
        for stage, config in context.workflow.stages.items()
        for title, place in config.outputs.items()
        if stage != "shard"
        and name in place.pairs_of
        and StageOutput(context.folder_of(stage) / place.folder).has_plan()
    ]


def _settings(config: ShardConfig, context: StageContext) -> Mapping[str, Mapping[str, Any]]:
    return {
        f"{name}/{split}": planned_settings(config, source, split)
        for name, source in config.sources.items()
        for split in source.splits
    }


SHARD = Stage(run=_run, settings=_settings)
