"""Draws the pictures of stage results: chooses the pairs to show, and reads their images and stored rows back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dhpf.drawing import (
    Picture,
    draw_class_bars,
    draw_found_matches,
    draw_layer_search,
    draw_layer_selection,
    draw_masks,
    draw_matches,
    draw_pck_bars,
    draw_warp,
    in_words,
    warp_source_onto_target,
)
from dhpf.images import RGB, ImageError, decode_image
from dhpf.pipelines.inputs.block_source import BlockSource
from dhpf.pipelines.inputs.shard_set import ShardSet
from dhpf.pipelines.layer_search.beam import best_set, kept_sets
from dhpf.pipelines.outputs.tables import best_median_worst, layers_of_mask, points_of
from dhpf.pipelines.stages.evaluate import MethodScores, correct_keypoints_of
from dhpf.pipelines.stages.match import MatchResult
from dhpf.pipelines.stages.search import SearchResult
from dhpf.records import Correspondences

PICTURED_ALPHA = 0.1
"""PCK threshold by which the keypoints of a picture are drawn as correct or wrong."""

ALL_PAIRS = "all pairs"
"""What a picture calls the pairs of a set without categories."""


class PairImages:
    """The decoded images of a set's pairs, never mirrored, because the points of tables are in original pixels."""

    def __init__(self, pairs: BlockSource) -> None:
        self._read = pairs.read

    def of(self, row: Mapping[str, Any]) -> tuple[RGB, RGB]:
        """Source and target of a table's row."""
        source, target = (self._image(row[side]) for side in ("source", "target"))
        return source, target

    def _image(self, image_id: str) -> RGB:
        return decode_image(self._read(image_id), image_id)


def method_pictures(result: MethodScores, shards: ShardSet, num_layers: int) -> Iterator[tuple[str, Picture]]:
    """Named pictures of one method on one shard set: layers per class, and the best, the median and the worst pair."""
    rows = {row["number"]: row for row in result.predictions.to_pylist()}
    title = f"Layers that {result.method} uses on {result.on}"
    yield "layers-per-class", layer_picture(list(rows.values()), num_layers, title)
    images = PairImages(shards)
    metric, ranked = _ranked(result)
    for name, number in best_median_worst(ranked).items():
        row = rows[number]
        try:
            shown = images.of(row)
        except ImageError:
            continue
        score = f"{in_words(metric)} {100 * ranked[number]:.0f} %"
        title = f"{result.method} on {result.on}: {name} pair {row['pair_id']}, {score}"
        yield from _pair_pictures(name, row, shown, title, shards.thresholds[:1])


def layer_picture(rows: Sequence[Mapping[str, Any]], num_layers: int, title: str) -> Picture:
    """Heat map of how often pairs of each class use each layer."""
    categories = sorted({row["category"] for row in rows})
    rates = np.zeros((len(categories), num_layers))
    for index, category in enumerate(categories):
        members = [layers_of_mask(row["layers"]) for row in rows if row["category"] == category]
        for layers in members:
            rates[index, layers] += 1 / len(members)
    return draw_layer_selection(rates, [c or ALL_PAIRS for c in categories], list(range(num_layers)), title)


def comparison_picture(results: Sequence[MethodScores], title: str) -> Picture:
    """Bars of the metrics of several methods on one shard set, classes left out."""
    table: dict[str, dict[str, float]] = {}
    for result in results:
        metrics = {m: v for m, v in result.summary.items() if "/" not in m and m not in ("layers", "seconds")}
        table[result.method] = metrics
    return draw_pck_bars(table, title)


def class_picture(results: Sequence[MethodScores]) -> Picture:
    """Bars of several methods on one shard set for each class, in the metric that pairs are ranked by."""
    metric = next((metric for metric, _ in map(_ranked, results) if metric), "")
    prefix = f"{metric}/class/"
    table = {
        result.method: {k.removeprefix(prefix): v for k, v in result.summary.items() if k.startswith(prefix)}
        for result in results
    }
    whole = {result.method: result.summary[metric] for result in results if metric in result.summary}
    title = f"Methods on {results[0].on} by class: {in_words(metric)}, %"
    return draw_class_bars(table, whole, title)


def search_picture(result: SearchResult) -> Picture:
    """The scored sets of a layer search, size by size, and which of them were extended."""
    levels = [{scored.layers: scored.pck for scored in level} for level in result.levels]
    kept = [[scored.layers for scored in kept_sets(level, result.beam)] for level in result.levels]
    title = f"Search for layers on {result.num_pairs} pairs of {result.on}"
    return draw_layer_search(levels, kept, len(levels[0]), f"{in_words(result.metric)}, %", title)


def search_baselines(found: SearchResult) -> dict[str, float]:
    """The PCK of the best single layer and of the best set that a search found, untrained, by the name in a picture."""
    named = {"best single layer": best_set(found.levels[:1]), "searched layers": found.best}
    pairs = f"untrained, {found.num_pairs} pairs"
    return {f"{name} {', '.join(map(str, s.layers))} ({pairs})": s.pck for name, s in named.items()}


def correspondence_pictures(result: MatchResult, pairs: BlockSource) -> Iterator[tuple[str, Picture]]:
    """Matches of the pairs with the highest, about the median and the lowest score."""
    images = PairImages(pairs)
    for name, row in result.ranked_rows().items():
        try:
            shown = images.of(row)
        except ImageError:  # too large to be drawn, or changed since
            continue
        found = Correspondences(
            points_of(row["source_points"]),
            points_of(row["target_points"]),
            np.array(row["confidence"], dtype=np.float32),
            tuple(layers_of_mask(row["layers"])),
        )
        title = f"{name} pair {row['pair_id']}: score {row['score']:.2f}"
        names = row["source"], row["target"]
        yield f"{name}-matches", draw_found_matches(*shown, found, names=names, title=title)


def _pair_pictures(
    name: str, row: Mapping[str, Any], images: tuple[RGB, RGB], title: str, thresholds: tuple[str, ...]
) -> Iterator[tuple[str, Picture]]:
    source, target = images
    if row["target_keypoints"]:
        correct = correct_keypoints_of(row, thresholds[0], (PICTURED_ALPHA,)) if thresholds else None
        yield (
            f"{name}-matches",
            draw_matches(
                source,
                target,
                points_of(row["source_keypoints"]),
                points_of(row["predicted_keypoints"]),
                true_points=points_of(row["target_keypoints"]),
                valid=np.array(row["valid"]),
                correct=None if correct is None else correct[0],
                title=title,
            ),
        )
    if row["target_outline"]:
        outlines = (points_of(row[f"{side}_outline"]) for side in ("source", "target", "predicted"))
        yield f"{name}-masks", draw_masks(source, target, *outlines, title=title)
    warped = warp_source_onto_target(
        source, target.shape[:2], points_of(row["matches_source"]), points_of(row["matches_target"])
    )
    yield f"{name}-warp", draw_warp(source, target, warped)


def _ranked(result: MethodScores) -> tuple[str, dict[int, float]]:
    """The metric that ranks pairs, a PCK@0.1 if there is one, and its value for each pair; empty without scores."""
    scores = result.scores.to_pylist()
    if not scores:
        return "", {}
    metrics = list(dict.fromkeys(row["metric"] for row in scores))
    metric = next((m for m in metrics if m.startswith("PCK@0.1 ")), metrics[0])
    return metric, {row["number"]: row["value"] for row in scores if row["metric"] == metric}
