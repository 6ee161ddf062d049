"""The match stage: correspondences of every pair of a collection."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from dhpf.data.preprocessing import points_from_frame, points_to_frame
from dhpf.model.transfer import dense_flow, mutual_matches, transfer
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

    def __call__(self, pair: MatchedPair) -> Mapping[str, Any]:
        mirrored = pair.record.mirrored
        found = mutual_matches(pair.correlation, pair.best_score, self.matches_per_pair)
        row = pair.common_row() | {
            "score": float(found.confidence.mean()) if len(found.confidence) else 0.0,
            "source_points": points_from_frame(found.source_points.numpy(), pair.source_size, mirrored).tolist(),
            "target_points": points_from_frame(found.target_points.numpy(), pair.target_size, mirrored).tolist(),
            "confidence": found.confidence.tolist(),
        }
        given = pair.record.source_keypoints
        if given is not None:
            framed = torch.from_numpy(points_to_frame(given, pair.source_size, mirrored))[None]
            everything = torch.ones(framed.shape[:2], dtype=torch.bool)
            moved = transfer(pair.correlation[None], pair.best_score[None], framed, everything)
            row["given_points"] = given.tolist()
            row["transferred_points"] = points_from_frame(moved.points[0].numpy(), pair.target_size, mirrored).tolist()
            row["transferred_valid"] = moved.valid[0].tolist()
        if self.flow:
            flow = dense_flow(pair.correlation).numpy()
            row["flow"] = points_from_frame(flow, pair.target_size, mirrored).tolist()
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
