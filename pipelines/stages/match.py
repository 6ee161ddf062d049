"""The match stage: finds and stores correspondences for every pair of a shard set or a collection."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dhpf.manifest import CommitRecord
from dhpf.model.engines.choose import choose_engine
from dhpf.pipelines.blocks.retrying import Retry, num_failed
from dhpf.pipelines.cluster_metrics import StageName, Work, count_work
from dhpf.pipelines.config import MatchConfig, deciding_settings
from dhpf.pipelines.inputs.block_source import BlockSource, RejectedRows
from dhpf.pipelines.inputs.collection import Collection
from dhpf.pipelines.inputs.image_stamps import of_collection, require_not_replaced
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching.block_matching import MatchOptions
from dhpf.pipelines.matching.matched_pair import MatchedPair
from dhpf.pipelines.matching.measured_costs import NUM_IMAGES, MeasuredCosts, measure_costs
from dhpf.pipelines.matching.pool import Progress, match_blocks
from dhpf.pipelines.outputs.code_version import code_version
from dhpf.pipelines.outputs.store import REJECTS_TASK, StageOutput
from dhpf.pipelines.outputs.tables import CORRESPONDENCES, RANKS, ranked_pairs, read_parquet
from dhpf.pipelines.outputs.writers import PART, file_name
from dhpf.planning.plan_summary import counted, estimate
from dhpf.records import PairRecord, Points
from dhpf.storage import Location

_Ranked = tuple[float, int, int, int]
"""A pair's negative score and number, how many pairs of its block have a score, and the place of the block's commit."""


@dataclass(frozen=True)
class CorrespondenceRows:
    """Makes a row of CORRESPONDENCES.

    Attributes:
        matches_per_pair, flow: as in MatchConfig.
        model, code_version: names of the model and of the code that make the row.
    """

    matches_per_pair: int
    flow: bool
    model: str
    code_version: str

    def failed(self, row: dict[str, Any]) -> Mapping[str, Any]:
        return row | {"model": self.model, "code_version": self.code_version}

    @property
    def stage(self) -> StageName:
        return "match"

    @property
    def schema(self) -> pa.Schema:
        return CORRESPONDENCES

    def wanted_points(self, record: PairRecord) -> Sequence[Points] | None:
        if self.flow:
            return None
        return [] if record.source_keypoints is None else [record.source_keypoints]

    def __call__(self, pair: MatchedPair) -> Mapping[str, Any]:
        source, target, confidence = pair.matches(self.matches_per_pair)
        row = pair.common_row() | {
            "score": float(confidence.mean()) if len(confidence) else 0.0,
            "source_points": source.tolist(),
            "target_points": target.tolist(),
            "confidence": confidence.tolist(),
        }
        given = pair.record.source_keypoints
        if given is not None:
            moved, valid, _ = pair.transfer(given)
            row |= {
                "given_points": given.tolist(),
                "transferred_points": moved.tolist(),
                "transferred_valid": valid.tolist(),
            }
        if self.flow:
            row["flow"] = pair.flow().tolist()
        return {**row, "model": self.model, "code_version": self.code_version}


@dataclass(frozen=True)
class MatchResult:
    """The stored correspondences of a shard set or a collection.

    Attributes:
        record: counts, settings, model and dataset.
        output: where the correspondences lie.
        manifest_commits: the commits of all its tasks.
    """

    record: Mapping[str, Any]
    output: StageOutput
    manifest_commits: Sequence[CommitRecord]

    @property
    def commits(self) -> Iterator[CommitRecord]:
        """The commits of blocks, each of which holds a part of the table, in the order of the pairs."""
        return (commit for commit in self.manifest_commits if commit.task != REJECTS_TASK)

    @property
    def num_described(self) -> int:
        """How many images were described; an image counts once for each block that it is in."""
        return num_described(self.record)

    def ranked_rows(self) -> dict[str, dict[str, Any]]:
        """The rows of the pairs with the best, the median and the worst score, by these names; none without scores.

        Of several blocks the median is the one of the blocks' medians, each of which counts as often as its block has
        pairs with scores. Only the parts that hold these rows are read; but all parts of an output whose tasks do not
        say which pairs these are, as version 0.1 wrote it.
        """
        found: dict[str, list[_Ranked]] = {name: [] for name in RANKS}
        for place, commit in enumerate(self.manifest_commits):
            ranks = self._ranks_of(commit)
            for name in RANKS:
                if name in ranks:
                    score, number = ranks[name]
                    found[name].append((-score, number, ranks["num_scored"], place))
        if not found["best"]:
            return {}
        chosen = {"best": min(found["best"]), "median": _middle(found["median"]), "worst": max(found["worst"])}
        parts = {place: self._part(self.manifest_commits[place]) for *_, place in chosen.values()}
        return {name: _row_of(parts[place], number) for name, (_, number, _, place) in chosen.items()}

    def _ranks_of(self, commit: CommitRecord) -> Mapping[str, Any]:
        """What `ranked_pairs` says of the part that a task wrote."""
        if commit.task == REJECTS_TASK:
            return {}
        if "scores" in commit.info:
            return dict(commit.info["scores"])
        return ranked_pairs(self._part(commit, ("number", "score")))

    def _part(self, commit: CommitRecord, columns: Sequence[str] | None = None) -> pa.Table:
        """The part of the table that a task wrote; only these columns where some are named."""
        part = self.output.read(commit, file_name(PART))
        return read_parquet([part], CORRESPONDENCES, columns, where=self.output.root)


def _row_of(part: pa.Table, number: int) -> dict[str, Any]:
    [row] = part.filter(pc.equal(part["number"], number)).to_pylist()
    return dict(row)


def _middle(ranked: list[_Ranked]) -> _Ranked:
    """The one in the middle, if each is there as often as its block has pairs with scores."""
    left = sum(num_scored for _, _, num_scored, _ in ranked) // 2
    for one in sorted(ranked):
        left -= one[2]
        if left < 0:
            break
    return one


def match(
    config: MatchConfig,
    pairs: BlockSource,
    model: ModelSource,
    folder: Location,
    log_metrics: Callable[[Mapping[str, float]], None],
    retry: Retry | None = None,
) -> MatchResult:
    """Matches all pairs of a shard set or a collection; a complete output is left as it is.

    Args:
        folder: of the stage; the output is the sub-folder that has the name of `pairs`.
        log_metrics: called with the number of pairs, of failures, and of pairs per second while the stage runs.
        retry: if given, failed pairs are tried again, of a complete output, too.

    Raises:
        PlanConflict: the folder holds matches of other pairs, or by other settings.
        ReplacedImages: it holds matches of other pictures.
    """
    started = time.time()
    output = StageOutput(folder / pairs.name)
    plan = {
        **planned_settings(config, pairs.name),
        "dataset": pairs.digest,
        "model": model.identity(),
        **pairs.settings,
        "tasks": pairs.tasks,
    }
    output.plan(plan)
    if isinstance(pairs, Collection):
        require_not_replaced(output, of_collection(pairs, output))
    title = f"match {pairs.name}"
    if retry:
        retry.begin(title, output, num_failed)
    manifest = output.manifest()
    if manifest is None:
        rows = CorrespondenceRows(config.matches_per_pair, config.flow, model.name(), code_version())

        def report(progress: Progress) -> None:
            rate = progress.num_pairs / max(progress.seconds, 1e-9)
            done = {"num_pairs": progress.num_pairs, "num_failed": progress.num_failed, "pairs_per_second": rate}
            log_metrics({f"{pairs.name}/running/{key}": float(value) for key, value in done.items()})

        rejected = _keep_rejects(pairs.rejected, output)
        options = match_options(config)
        match_blocks(pairs, model, rows, output, config, title=title, options=options, report=report)
        record = {
            **{key: value for key, value in plan.items() if key != "tasks"},
            "images": pairs.config.root if isinstance(pairs, Collection) else None,  # of a shard set: in its shards
            "num_pairs": pairs.num_pairs,
            **rejected,
            **totals(output.committed()),
            "code_version": code_version(),
            "seconds": round(time.time() - started, 3),
        }
        manifest = output.finish(record)
    if retry:
        retry.end(title, output, num_failed)
    return MatchResult(manifest.record, output, manifest.commits)


def totals(commits: Mapping[str, CommitRecord]) -> dict[str, Any]:
    """The counts of all blocks together, and why the first pair failed, if one did."""
    failed = described = 0
    first: tuple[str, str] | None = None
    for task, commit in commits.items():
        if task != REJECTS_TASK:
            info = commit.info
            failed, described = failed + int(info["num_failed"]), described + num_described(info)
            if info["first_failure"] and (first is None or task < first[0]):
                first = task, info["first_failure"]
    return {"num_failed": failed, "first_failure": first and first[1], "num_described": described}


def num_described(counts: Mapping[str, Any]) -> int:
    """The number of described images in the counts of a block or of a whole output.

    Outputs that version 0.1 began hold the number under another name.
    """
    return int(counts["num_described"] if "num_described" in counts else counts["num_encoded"])


def match_options(config: MatchConfig) -> MatchOptions:
    """How the blocks of the match stage are matched."""
    return MatchOptions(config.batch_size, config.features, config.intermediates, config.borders)


def planned_settings(config: MatchConfig, name: str) -> dict[str, Any]:
    """The part of the plan of a shard set or a collection that is known before the pairs and the model are read."""
    collection = config.collections.get(name)
    of_collection = {} if collection is None else deciding_settings(collection)
    if of_collection.get("max_pairs", 0) is None:  # chosen later, when the pairs are counted
        del of_collection["max_pairs"]
    return {"stage": "match", "on": name, **deciding_settings(config), **of_collection}


def _keep_rejects(rejected: RejectedRows | None, output: StageOutput) -> dict[str, Any]:
    """Commits the rows of a pair list that cannot be used; returns their number and why the first was rejected."""
    if rejected is None:
        return {"num_rejected": 0, "first_rejection": None}
    counts = {"num_rejected": rejected.num_rows, "first_rejection": rejected.first_reason}
    table = {file_name(REJECTS_TASK): rejected.table.read_bytes()}
    output.note(output.commit(REJECTS_TASK, table, counts))
    count_work("match", Work(errors={"row": rejected.num_rows}))
    return counts


def estimate_run(config: MatchConfig, collection: Collection, model: ModelSource) -> list[str]:
    """Lines that estimate what matching a collection takes, measured here on a few of its images and pairs."""
    lines = plan_lines(collection)
    if not collection.num_pairs:
        return lines
    network = model.load(config.resources)
    engine = choose_engine(config.engine, network.backbone.mean.device)
    images = list(dict.fromkeys(image for pair in collection.first_pairs(NUM_IMAGES) for image in pair))
    row_of = CorrespondenceRows(config.matches_per_pair, config.flow, "", "")
    costs = measure_costs(network, engine, images, collection.read, row_of, match_options(config))
    return [*lines, *cost_lines(config, collection, costs)]


def plan_lines(collection: Collection) -> list[str]:
    """Lines that say what would be matched, and what is skipped."""
    lines = str(collection.plan.summary).splitlines()
    lines += map(str, collection.plan.remarks)
    rejected = collection.rejected
    if rejected is not None and rejected.num_rows:
        rows = counted(rejected.num_rows, "row")
        lines.append(f"{rows} of the list cannot be used; the first: {rejected.first_reason}")
    return lines


def cost_lines(config: MatchConfig, collection: Collection, costs: MeasuredCosts) -> list[str]:
    """Lines that say what matching the whole collection will take at these costs."""
    wanted = estimate(
        collection.plan.summary,
        seconds_per_image=costs.seconds_per_image,
        seconds_per_pair=costs.seconds_per_pair,
        bytes_per_image_file=collection.mean_file_size(),
        bytes_per_block=costs.bytes_per_block,
        bytes_per_pair=costs.bytes_per_pair,
        num_actors=config.num_actors,
        price_per_hour=config.price_per_hour,
    )
    speed = (
        f"{costs.seconds_per_image * 1000:.0f} ms per image and {costs.seconds_per_pair * 1000:.0f} ms per pair "
        "on one actor, measured here"
    )
    return [speed, f"{wanted} with {counted(config.num_actors, 'actor')}"]
