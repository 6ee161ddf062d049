"""Runs the shard stage of a workflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dhpf.pipelines.config import ShardConfig
from dhpf.pipelines.stage_runs.context import Stage, StageContext
from dhpf.pipelines.stages.shard import planned_settings, shard
from dhpf.pipelines.tracking.runs import StageRun

COUNTS = ("num_pairs", "num_images", "num_rejected", "num_bytes")


def _run(config: ShardConfig, context: StageContext, run: StageRun) -> None:
    for shards in shard(config, context.folder_of("shard")):
        record = shards.record
        context.outcome.report(
            "shard",
            {"shard_set": shards.name, "num_shards": len(shards.shards)} | {count: record[count] for count in COUNTS},
            f"{shards.name}: {record['num_pairs']} pairs, {record['num_images']} images in "
            f"{len(shards.shards)} shards, {record['num_rejected']} rejected",
        )
        context.outcome.reject(int(record["num_rejected"]), record["first_rejection"])
        counts = {f"{shards.name}/{count}": float(record[count]) for count in COUNTS}
        run.log_metrics(counts)
        context.outcome.measure("shard", counts)
        run.set_tags({f"dataset {shards.name}": shards.digest})


def _settings(config: ShardConfig, context: StageContext) -> Mapping[str, Mapping[str, Any]]:
    return {
        f"{name}/{split}": planned_settings(config, source, split)
        for name, source in config.sources.items()
        for split in source.splits
    }


SHARD = Stage(run=_run, settings=_settings)
