"""Lists what a workflow would make: every output, its state, the pairs it is made from, and an estimate of the cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dhpf.pairs import open_pair_source
from dhpf.pipelines.config import ShardConfig
from dhpf.pipelines.inputs.shard_set import shard_set_output
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.stage_runs.context import StageContext
from dhpf.pipelines.stage_runs.match import estimates
from dhpf.pipelines.stage_states import state_of
from dhpf.records import PairRecord


@dataclass(frozen=True)
class PlannedOutput:
    """An output that a run would make.

    Attributes:
        title: names the output, such as "photos/all".
        state: "to do", "begun, ..." or "complete".
        num_pairs: how many pairs it is made from; None for a collection, whose estimate names the number.
        estimate: lines that say what matching a collection would cost; empty for a shard set.
    """

    stage: str
    title: str
    state: str
    num_pairs: int | None
    estimate: list[str] = field(default_factory=list)


def planned_outputs(context: StageContext, only: str | None = None) -> Iterator[PlannedOutput]:
    """Every output of a workflow, or of one of its stages. Runs no stage and writes nothing.

    Raises:
        InputError: a data set, a collection or a model that cannot be used.
    """
    workflow = context.workflow
    counts = num_pairs_of(context, workflow.shard)
    for stage, config in workflow.stages.items():
        if only not in (None, stage):
            continue
        of_collections = estimates(workflow.match, context) if stage == "match" and workflow.match else {}
        for title, place in config.outputs.items():
            state = state_of(StageOutput(context.folder_of(stage) / place.folder))
            num_pairs = sum(counts[name] for name in place.pairs_of) if place.pairs_of else None
            yield PlannedOutput(stage, title, state, num_pairs, of_collections.get(title, []))


def num_pairs_of(context: StageContext, config: ShardConfig | None) -> Mapping[str, int]:
    """The number of pairs of each shard set: those it holds where it is complete, else those that its source lists."""
    counts = {}
    for name, source in (config.sources if config else {}).items():
        for split in source.splits:
            shard_set = f"{name}/{split}"
            manifest = shard_set_output(context.folder_of("shard"), shard_set).manifest()
            if manifest is not None:
                counts[shard_set] = int(manifest.record["num_pairs"])
            else:
                listed = open_pair_source(source.kind, source.options).pairs(split)
                counts[shard_set] = sum(isinstance(pair, PairRecord) for pair in listed)
    return counts
