"""The search stage: finds, without training, the set of layers with the highest PCK on pairs with keypoints.

Actors score all sets of one size, each actor on its share of the pairs; then the scores of that size are committed, and
decide which larger sets to score. A search that was stopped loses only the size that it was at.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from dhpf.config import ModelConfig
from dhpf.errors import InputError
from dhpf.manifest import CommitRecord
from dhpf.model.backbone import load_backbone
from dhpf.pipelines.cluster_metrics import BlocksLeft
from dhpf.pipelines.config import SearchConfig, deciding_settings
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.inputs.shard_set import ShardSet
from dhpf.pipelines.layer_search.beam import Layers, Level, ScoredSet, best_set, kept_sets, next_sets
from dhpf.pipelines.layer_search.set_scores import SetScorer, scorable_pairs
from dhpf.pipelines.outputs.code_version import code_version
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.outputs.tables import LAYER_SETS, layer_mask, layers_of_mask, read_parquet, table_of
from dhpf.pipelines.outputs.writers import PART, file_name, table_file
from dhpf.pipelines.progress import CountedWork
from dhpf.pipelines.worker_reports import result_of
from dhpf.planning.blocks import Block, images_within, plan_blocks
from dhpf.records import PairRecord
from dhpf.storage import Location

SETS_PER_CALL = 4
"""Sets that an actor scores in one call: few, so that progress shows and little is lost when an actor dies."""

Report = Callable[[Level], None]


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        on: name of the shard set.
        metric: the one that sets were compared by, such as "PCK@0.1 image".
        levels: the sets that were scored, by size.
        beam: this many of a level's best sets were extended.
        num_pairs: number of pairs that every set was scored on.
    """

    on: str
    metric: str
    levels: tuple[Level, ...]
    beam: int
    num_pairs: int

    @property
    def best(self) -> ScoredSet:
        return best_set(self.levels)

    @property
    def num_sets(self) -> int:
        return sum(map(len, self.levels))

    def csv(self) -> str:
        """All sets, the best of each size first."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([field for field in LAYER_SETS.names if field != "is_kept"])
        for level in self.levels:
            for scored in kept_sets(level, len(level)):
                writer.writerow([len(scored.layers), " ".join(map(str, scored.layers)), scored.pck])
        return text.getvalue()


def search(
    model: ModelConfig, config: SearchConfig, shards: ShardSet, folder: Location, report: Report = lambda level: None
) -> SearchResult:
    """Runs the search, or goes on with one; a complete search is left as it is.

    Args:
        model: with all layers selected, see dhpf.pipelines.workflow_file.search_model.
        folder: of the stage.
        report: called with every level that this run scores.

    Raises:
        InputError: no pair of the shard set has a PCK, or the folder holds another search.
    """
    started = time.time()
    output, source = StageOutput(folder), ModelSource(config=model)
    output.plan(
        {
            **planned_settings(model, config),
            "dataset": shards.digest,
            "tasks": [f"layers-{number:02d}" for number in range(1, config.max_layers + 1)],
        }
    )
    if output.manifest() is None:
        pairs = _chosen_pairs(config, shards)
        _score_missing_levels(config, source, shards, pairs, output, report)
        levels = _levels(output, output.committed().values())
        fixed = dataclasses.replace(model, selection="fixed", layers=best_set(levels).layers)
        output.finish(
            {
                "stage": "search",
                "model": fixed.settings(),
                "num_pairs": len(pairs),
                "code_version": code_version(),
                "seconds": round(time.time() - started, 3),
            }
        )
    found = complete_search(config, shards, folder)
    assert found is not None
    return found


def complete_search(config: SearchConfig, shards: ShardSet, folder: Location) -> SearchResult | None:
    """What a complete search in this folder found; None where there is none."""
    output = StageOutput(folder)
    manifest = output.manifest()
    if manifest is None:
        return None
    metric = f"PCK@{config.alpha:g} {shards.thresholds[0]}"
    return SearchResult(
        shards.name, metric, tuple(_levels(output, manifest.commits)), config.beam, int(manifest.record["num_pairs"])
    )


def planned_settings(model: ModelConfig, config: SearchConfig) -> dict[str, Any]:
    """The part of a search's plan that is known before its pairs are read."""
    identity = ModelSource(config=model).identity()
    return {"stage": "search", "on": config.on, "model": identity, "config": deciding_settings(config)}


def searched_model(folder: Location) -> ModelConfig:
    """The model with the layers that the search in this folder found.

    Raises:
        InputError: there is no complete search.
    """
    manifest = StageOutput(folder).manifest()
    if manifest is None:
        raise InputError(f"model 'searched': no complete search in {folder}; run the search stage first")
    values = dict(manifest.record["model"])
    return ModelConfig(**values | {"layers": tuple(values["layers"])})


def _chosen_pairs(config: SearchConfig, shards: ShardSet) -> list[PairRecord]:
    """The shard set's pairs with a PCK; if there are more than `max_pairs`, that many of them, evenly spread."""
    pairs = list(scorable_pairs(shards))
    if not pairs:
        raise InputError(f"search.on: no pair of shard set {shards.name} has keypoints that a PCK can be taken of")
    wanted = min(len(pairs), config.max_pairs or len(pairs))
    return [pairs[number * len(pairs) // wanted] for number in range(wanted)]


def _score_missing_levels(
    config: SearchConfig,
    source: ModelSource,
    shards: ShardSet,
    pairs: Sequence[PairRecord],
    output: StageOutput,
    report: Report,
) -> None:
    assert source.config is not None
    num_layers = len(load_backbone(source.config.backbone, source.config.weights))
    scorers: _Scorers | None = None
    done = dict(output.committed())
    for task in output.missing():
        levels = _levels(output, (commit for other, commit in done.items() if other < task))
        sets = next_sets(levels, num_layers, config.beam)
        level: Level = []
        if sets:
            scorers = scorers or _Scorers(config, source, shards, pairs)
            level = scorers.score(sets, f"search {shards.name}, {len(levels) + 1} layers")
        # After the end of the search, the remaining levels are committed without sets.
        done[task] = output.commit(task, table_file(PART, _table(level, config.beam)), {"num_sets": len(level)})
        output.note(done[task])
        if sets:
            report(level)


class _Scorers:
    """The actors of a search, each with its share of the pairs."""

    def __init__(
        self, config: SearchConfig, source: ModelSource, shards: ShardSet, pairs: Sequence[PairRecord]
    ) -> None:
        resources = config.resources
        actor = ray.remote(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            max_restarts=4,
            max_task_retries=2,
            scheduling_strategy="SPREAD",
        )(SetScorer)
        max_images = images_within(config.feature_memory_mb * 10**6, source.bytes_per_image())
        if any(pair.mirrored for pair in pairs):
            max_images = max(2, max_images // 2)  # an image may be described twice, as it is and mirrored
        shares = np.array_split(np.arange(len(pairs)), min(config.num_actors, len(pairs)))
        self._num_pairs = len(pairs)
        self._work: list[tuple[Any, Block]] = []
        for share in shares:
            scorer = actor.remote(source, shards, config.alpha, resources, config.engine)
            records = (pairs[number] for number in share)
            blocks = plan_blocks(records, max_pairs=len(share), max_images=max_images)
            self._work += [(scorer, block) for block in blocks]

    def score(self, sets: Sequence[Layers], title: str) -> Level:
        """The mean PCK over all pairs of each set, in order."""
        places = {}
        for part, (scorer, block) in enumerate(self._work):
            for begin in range(0, len(sets), SETS_PER_CALL):
                places[scorer.score.remote(block, sets[begin : begin + SETS_PER_CALL])] = part, begin
        values = [np.empty((len(sets), len(block.pairs))) for _, block in self._work]
        with (
            CountedWork(title, "score", len(sets) * self._num_pairs) as work,
            BlocksLeft("search", len(places)) as left,
        ):
            while places:
                done = ray.wait(list(places), num_returns=1)[0][0]
                part, begin = places.pop(done)
                scores = result_of(done)
                values[part][begin : begin + len(scores)] = scores
                work.update(scores.size)
                left.one_done()
        means = np.concatenate(values, axis=1).mean(axis=1)
        return [ScoredSet(layers, float(mean)) for layers, mean in zip(sets, means, strict=True)]


def _table(level: Level, beam: int) -> Any:
    kept = set(kept_sets(level, beam))
    rows = (
        {"num_layers": len(s.layers), "layers": layer_mask(s.layers), "pck": s.pck, "is_kept": s in kept} for s in level
    )
    return table_of(rows, LAYER_SETS)


def _levels(output: StageOutput, commits: Iterable[CommitRecord]) -> list[Level]:
    """The levels that were committed, smallest sets first."""
    levels: list[Level] = []
    for commit in sorted(commits, key=lambda commit: commit.task):
        rows = read_parquet([output.read(commit, file_name(PART))], LAYER_SETS, where=output.root).to_pylist()
        if rows:
            levels.append([ScoredSet(tuple(layers_of_mask(row["layers"])), row["pck"]) for row in rows])
    return levels
