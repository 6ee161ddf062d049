"""The match stage: correspondences of every pair of a collection."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dhpf.records import PairRecord, Points
from pipelines.code_version import code_version
from pipelines.config import MatchConfig
from pipelines.matcher_pool import MatchedPair, match_blocks
from pipelines.model_source import ModelSource
from pipelines.shard_set import ShardSet
from pipelines.store import StageOutput
from pipelines.tables import CORRESPONDENCES, read_parquet


@dataclass(frozen=True)
class CorrespondenceRows:
    """A row of CORRESPONDENCES.

    Attributes:
        matches_per_pair, flow: as in MatchConfig.
    """

    matches_per_pair: int
    flow: bool

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
        return row


@dataclass(frozen=True)
class MatchResult:
    """The correspondences of a shard set, as they lie in Parquet parts.

    Attributes:
        record: counts, settings, model and dataset.
        parts: paths of the parts, in the order of the pairs.
    """

    record: Mapping[str, Any]
    parts: tuple[Path, ...]

    def scores(self) -> dict[int, float]:
        """Each pair's score by its running number."""
        table = read_parquet(self.parts, CORRESPONDENCES, ("number", "score"))
        return dict(zip(table["number"].to_pylist(), table["score"].to_pylist(), strict=True))

    def rows(self, numbers: Collection[int]) -> list[dict[str, Any]]:
        """The whole rows of a few pairs."""
        found = []
        for part in self.parts:
            table = read_parquet([part], CORRESPONDENCES)
            found += table.filter(pc.is_in(table["number"], pa.array(sorted(numbers), pa.int64()))).to_pylist()
        return found


def match(config: MatchConfig, shards: ShardSet, model: ModelSource, folder: Path) -> MatchResult:
    """Matches all pairs of a shard set; what is complete is left as it is.

    Args:
        folder: of the stage; SOURCE/SPLIT below it holds this set's correspondences.
    """
    started = time.time()
    output = StageOutput(folder / shards.name)
    plan = {
        "stage": "match",
        "on": shards.name,
        "dataset": shards.digest,
        "model": model.identity(),
        "matches_per_pair": config.matches_per_pair,
        "flow": config.flow,
        "tasks": [task for task, _ in shards.shards],
    }
    output.plan(plan)
    manifest = output.manifest()
    if manifest is None:
        rows = CorrespondenceRows(config.matches_per_pair, config.flow)
        match_blocks(
            f"match {shards.name}",
            shards,
            model,
            rows,
            output,
            batch_size=config.batch_size,
            num_actors=config.num_actors,
            resources=config.resources,
            engine=config.engine,
        )
        encoded = sum(int(commit.info["num_encoded"]) for commit in output.committed().values())
        record = {key: value for key, value in plan.items() if key != "tasks"} | {
            "num_pairs": shards.num_pairs,
            "num_encoded": encoded,
            "code_version": code_version(),
            "seconds": round(time.time() - started, 3),
        }
        manifest = output.finish(record)
    return MatchResult(manifest.record, tuple(output.path(c, "part.parquet") for c in manifest.commits))
