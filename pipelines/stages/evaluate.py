"""The evaluate stage: predicts with each method on shard sets with ground truth, and scores the stored predictions."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dhpf.errors import InputError
from dhpf.frame import points_to_frame
from dhpf.metrics import (
    correct_keypoints,
    framed_target,
    intersection_over_union,
    label_transfer_accuracy,
    rasterise,
    summarise,
)
from dhpf.pipelines.blocks.retrying import Retry, num_failed
from dhpf.pipelines.cluster_metrics import StageName
from dhpf.pipelines.config import EvaluateConfig, deciding_settings_of_method, deciding_settings_of_scores
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.inputs.shard_set import ShardSet
from dhpf.pipelines.matching.block_matching import MatchOptions
from dhpf.pipelines.matching.matched_pair import MatchedPair
from dhpf.pipelines.matching.pool import match_blocks
from dhpf.pipelines.outputs.code_version import code_version
from dhpf.pipelines.outputs.store import StageOutput, remove_outputs
from dhpf.pipelines.outputs.tables import MATCHED, PREDICTIONS, SCORES, points_of, read_parquet, table_of
from dhpf.pipelines.outputs.writers import PART, file_name, table_file
from dhpf.planning.plan_summary import counted
from dhpf.records import PairRecord, Points
from dhpf.storage import Location

NUM_PICTURED_MATCHES = 60
"""Mutual matches of a pair that are stored for pictures."""


@dataclass(frozen=True)
class MethodScores:
    """The results of one method on one shard set.

    Attributes:
        on, method: names of the shard set and of the method.
        predictions: the stored table.
        scores: the stored table of scores, one row per pair and metric.
        summary: mean scores by name, see dhpf.metrics.summarise; also "layers", the mean number of layers that a
            matched pair uses, and "seconds", the mean time of one.
    """

    on: str
    method: str
    predictions: pa.Table
    scores: pa.Table
    summary: Mapping[str, float]

    @property
    def counts(self) -> dict[str, int]:
        """How many pairs there are, and how many of them failed."""
        statuses = self.predictions["status"].to_pylist()
        return {"num_pairs": len(statuses), "num_failed": len(statuses) - statuses.count(MATCHED)}

    def left_out(self) -> str | None:
        """Which pairs the means are not over, and why: pairs that failed, and pairs without a truth to score.

        None where every pair has every score, or none has a truth.
        """
        statuses = self.predictions["status"].to_pylist()
        failures = [status for status in statuses if status != MATCHED]
        num_scored = min(Counter(self.scores["metric"].to_pylist()).values(), default=0)
        if num_scored == len(statuses) or not num_scored and not failures:
            return None
        reasons = [f"{counted(len(failures), 'pair')} failed, the first: {failures[0]}"] if failures else []
        num_without = len(statuses) - num_scored - len(failures)
        if num_without:
            reasons.append(f"{num_without} without what its score needs")
        return f"{self.method}: means over {num_scored} of {counted(len(statuses), 'pair')}; {'; '.join(reasons)}"


@dataclass(frozen=True)
class PredictionRows:
    """Makes a row of PREDICTIONS: the pair's keypoints, or its outline, transferred to the target."""

    @property
    def stage(self) -> StageName:
        return "evaluate"

    @property
    def schema(self) -> pa.Schema:
        return PREDICTIONS

    def failed(self, row: dict[str, Any]) -> Mapping[str, Any]:
        return row

    def wanted_points(self, record: PairRecord) -> Sequence[Points]:
        has_masks = record.source_outline is not None and record.target_outline is not None
        wanted = (record.source_keypoints, record.source_outline if has_masks else None)
        return [points for points in wanted if points is not None]

    def __call__(self, pair: MatchedPair) -> Mapping[str, Any]:
        record = pair.record
        row = pair.common_row() | {"seconds": pair.seconds, "target_box": record.target_box}
        if record.source_keypoints is not None:
            predicted, valid, confidence = pair.transfer(record.source_keypoints)
            row |= {
                "source_keypoints": record.source_keypoints.tolist(),
                "target_keypoints": None if record.target_keypoints is None else record.target_keypoints.tolist(),
                "predicted_keypoints": predicted.tolist(),
                "valid": valid.tolist(),
                "confidence": confidence.tolist(),
            }
        if record.source_outline is not None and record.target_outline is not None:
            predicted, valid, _ = pair.transfer(record.source_outline)
            row |= {
                "source_outline": record.source_outline.tolist(),
                "target_outline": record.target_outline.tolist(),
                "predicted_outline": predicted[valid].tolist(),
            }
        source, target, _ = pair.matches(NUM_PICTURED_MATCHES)
        return row | {"matches_source": source.tolist(), "matches_target": target.tolist()}


def evaluate(
    config: EvaluateConfig,
    shard_sets: Mapping[str, ShardSet],
    models: Mapping[str, ModelSource],
    folder: Location,
    retry: Retry | None = None,
) -> list[MethodScores]:
    """Predicts with every method on every shard set, and scores the predictions; complete outputs are left as they are.

    Args:
        models: the model of each method of the config.
        folder: of the stage; SOURCE/SPLIT/METHOD below it holds one method's predictions and scores.
        retry: if given, failed pairs are tried again, of complete predictions, too.
    """
    results = []
    for on in config.on:
        for method, model in models.items():
            root = folder / on / method
            predictions = _predict(config, shard_sets[on], method, model, StageOutput(root / "predictions"), retry)
            results.append(_score(config, shard_sets[on], method, predictions, StageOutput(root / "scores")))
    return results


def _predict(
    config: EvaluateConfig,
    shards: ShardSet,
    method: str,
    model: ModelSource,
    output: StageOutput,
    retry: Retry | None,
) -> StageOutput:
    started = time.time()
    plan = {
        **planned_settings(config, shards.name, method),
        "dataset": shards.digest,
        "model": model.identity(),
        "tasks": shards.tasks,
    }
    output.plan(plan)
    title = f"evaluate {shards.name} {method}"
    if retry:
        retry.begin(title, output, num_failed)
    if output.manifest() is None:
        options = MatchOptions(config.batch_size, intermediates=config.intermediates.get(method, 0))
        match_blocks(shards, model, PredictionRows(), output, config, title=title, options=options)
        record = {"stage": "evaluate", "num_pairs": shards.num_pairs, "code_version": code_version()}
        output.finish(record | {"seconds": round(time.time() - started, 3)})
    if retry:
        retry.end(title, output, num_failed)
    return output


def planned_settings(config: EvaluateConfig, on: str, method: str) -> dict[str, Any]:
    """The part of a prediction plan that is known before the pairs and the model are read."""
    return {"stage": "evaluate", "on": on, **deciding_settings_of_method(config, method)}


def _score(
    config: EvaluateConfig, shards: ShardSet, method: str, predictions: StageOutput, output: StageOutput
) -> MethodScores:
    manifest = predictions.manifest()
    assert manifest is not None
    parts = (predictions.read(commit, file_name(PART)) for commit in manifest.commits)
    table = read_parquet(parts, PREDICTIONS, where=predictions.root)
    plan = {
        "stage": "evaluate",
        "predictions": manifest.digest(),
        **deciding_settings_of_scores(config),
        "thresholds": list(shards.thresholds),
        "tasks": ["scores"],
    }
    if output.planned("predictions") not in (None, plan["predictions"]):
        remove_outputs(output.root)  # scores of predictions that are no more: a damaged part of them was made again
    output.plan(plan)
    scores = table_of(
        (row for pair in table.to_pylist() for row in score_pair(pair, shards.thresholds, config.alphas)), SCORES
    )
    summary = summarise_scores(table, scores)
    if output.manifest() is None:
        output.commit("scores", table_file("scores", scores), {"summary": summary})
        output.finish({"stage": "evaluate", "code_version": code_version()})
    return MethodScores(shards.name, method, table, scores, summary)


def score_pair(row: Mapping[str, Any], thresholds: tuple[str, ...], alphas: tuple[float, ...]) -> list[dict[str, Any]]:
    """Rows of SCORES for one row of PREDICTIONS; none for a pair without ground truth."""
    common = {key: row[key] for key in ("number", "pair_id", "category")}
    return [common | score for score in (*_keypoint_scores(row, thresholds, alphas), *_mask_scores(row))]


def _keypoint_scores(
    row: Mapping[str, Any], thresholds: tuple[str, ...], alphas: tuple[float, ...]
) -> list[dict[str, Any]]:
    scores = []
    for threshold in thresholds:
        correct = correct_keypoints_of(row, threshold, alphas)
        if correct is None:
            continue
        for alpha, right in zip(alphas, correct, strict=True):
            counts = {"num_correct": int(right.sum()), "num_keypoints": len(right)}
            scores.append({"metric": f"PCK@{alpha:g} {threshold}", "value": float(right.mean()), **counts})
    return scores


def correct_keypoints_of(row: Mapping[str, Any], threshold: str, alphas: tuple[float, ...]) -> NDArray[np.bool_] | None:
    """(A, K) whether each keypoint of a row of PREDICTIONS is correct at each alpha; None where the pair has no such
    threshold.
    """
    if not row["target_keypoints"]:
        return None
    size, mirrored = tuple(row["target_size"]), row["mirrored"]
    box = None if row["target_box"] is None else tuple(row["target_box"])
    try:
        true, side = framed_target(points_of(row["target_keypoints"]), box, size, mirrored, threshold)
    except InputError:  # one keypoint alone has no extent
        return None
    predicted = points_to_frame(points_of(row["predicted_keypoints"]), size, mirrored)
    return correct_keypoints(predicted, true, np.array(row["valid"]), side, alphas)


def _mask_scores(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not row["target_outline"]:
        return []
    size, mirrored = tuple(row["target_size"]), row["mirrored"]
    target = rasterise(points_to_frame(points_of(row["target_outline"]), size, mirrored))
    transferred = rasterise(points_to_frame(points_of(row["predicted_outline"]), size, mirrored))
    return [
        {"metric": "LT-ACC", "value": label_transfer_accuracy(transferred, target)},
        {"metric": "IoU", "value": intersection_over_union(transferred, target)},
    ]


def summarise_scores(predictions: pa.Table, scores: pa.Table) -> dict[str, float]:
    """A method's mean scores by name; see MethodScores.summary."""
    frame = scores.to_pandas()
    summary: dict[str, float] = {}
    for metric, rows in frame.groupby("metric", sort=False):
        counts = None if rows["num_keypoints"].isna().any() else rows["num_keypoints"].to_numpy(dtype=np.int64)
        summary |= summarise({str(metric): rows["value"].to_numpy()}, list(rows["category"]), counts)
    matched = predictions.filter(pc.equal(predictions["status"], MATCHED))
    if matched.num_rows:
        summary["layers"] = float(np.mean([mask.bit_count() for mask in matched["layers"].to_pylist()]))
        summary["seconds"] = float(np.mean(matched["seconds"].to_numpy()))
    return summary
