"""The checks that a version must pass before it becomes champion: PCK on each benchmark, parity, and speed.

Champion and candidate are compared on predictions that the same code made for the same pairs; the interval of their
difference is bootstrapped over the pairs. Where there is no champion yet, only the absolute bounds are checked.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch

from dhpf.bootstrap import paired_difference
from dhpf.errors import InputError
from dhpf.frame import NUM_CELLS, to_square
from dhpf.images import decode_image
from dhpf.model.deviation import largest_deviation
from dhpf.model.engines.engine import MatchEngine
from dhpf.model.network import HyperpixelNetwork
from dhpf.pipelines.config import EvaluateConfig, PromotionConfig
from dhpf.pipelines.inputs.block_source import OpenBlock
from dhpf.pipelines.inputs.shard_set import ShardSet
from dhpf.pipelines.matching.block_matching import MatchOptions, match_block
from dhpf.pipelines.stages.evaluate import MethodScores, PredictionRows

MAX_DEVIATION = 1e-4
"""Largest deviation of an engine from the whole matrix, as a share of the largest value; rounding has a tenth of it."""

TIMED_ROUNDS = 5
"""Versions are timed this often, in turns; the fastest time counts, because load on the machine only adds time."""


@dataclass(frozen=True)
class Check:
    """The result of one check of a version.

    Attributes:
        name: such as "pck pf-willow/test", "parity" or "speed".
        passed: whether the version passed it.
        said: the numbers and the bound, in words.
        numbers: by name.
    """

    name: str
    passed: bool
    said: str
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def word(self) -> str:
        return word_of(self.passed)


def pck_check(config: PromotionConfig, metric: str, candidate: MethodScores, champion: MethodScores | None) -> Check:
    """Refuses a PCK that is below what any version must reach, or below the champion's by the whole bootstrap interval.

    Raises:
        InputError: the benchmark has no pair with this metric.
    """
    name = f"pck {candidate.on}"
    of_pairs = _values(candidate, metric)
    if not of_pairs:
        raise InputError(f"promotion.on: {candidate.on} has no pair with {metric}; name shard sets with keypoints")
    ours = np.array([of_pairs[number] for number in sorted(of_pairs)])
    pck = float(ours.mean())
    enough = pck >= config.least_pck
    counted = f"{len(ours)} pairs" + (f"; at least {100 * config.least_pck:.1f}" if config.least_pck else "")
    numbers = {"pck": pck, "num_pairs": float(len(ours))}
    if champion is None:
        return Check(name, enough, f"{metric} {100 * pck:.1f}, {counted}", numbers)
    of_same = _values(champion, metric)
    assert of_same.keys() == of_pairs.keys(), "both were predicted on the same shard set"
    theirs = np.array([of_same[number] for number in sorted(of_pairs)])
    found = paired_difference(ours, theirs, confidence=config.confidence, resamples=config.resamples, seed=config.seed)
    numbers |= {"champion_pck": float(theirs.mean()), "difference": found.mean, "low": found.low, "high": found.high}
    said = (
        f"{metric} {100 * pck:.1f} against {100 * theirs.mean():.1f}: {100 * found.mean:+.1f} "
        f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}] at {100 * config.confidence:g} %, {counted}"
    )
    return Check(name, enough and found.high >= 0, said, numbers)


@torch.inference_mode()
def parity_check(network: HyperpixelNetwork, engine: MatchEngine, blocks: Sequence[OpenBlock]) -> Check:
    """Checks that the engine gives the same result as the whole correlation matrix, which is the published method."""
    side, device = network.config.image_side, network.backbone.mean.device
    every = torch.ones(1, NUM_CELLS, dtype=torch.bool, device=device)
    deviations = []
    for block in blocks:
        for pair in block.pairs:
            images = [decode_image(block.read(image), image) for image in (pair.source, pair.target)]
            squares = torch.stack([to_square(image, side, pair.mirrored) for image in images])
            features = network.describe(squares.to(device))
            found, _ = network.match(features, features, [(0, 1)], every, engine)
            first, second = (features[torch.tensor([n], device=device)] for n in (0, 1))
            deviations.append(largest_deviation(found, network.correlate(first, second), every))
    largest = max(deviations)
    said = f"engine off the whole matrix by {largest:.1e}, at most {MAX_DEVIATION:g}, {len(deviations)} pairs"
    return Check("parity", largest <= MAX_DEVIATION, said, {"deviation": largest})


def speed_check(config: PromotionConfig, seconds: Sequence[float]) -> Check:
    """Refuses a version that takes more than the allowed multiple of the champion's seconds per pair.

    Args:
        seconds: of the candidate, and of the champion if there is one.
    """
    numbers = {"seconds_per_pair": seconds[0]}
    if len(seconds) == 1:
        return Check("speed", True, f"{1000 * seconds[0]:.0f} ms per pair, nothing to compare with", numbers)
    slowdown = seconds[0] / seconds[1]
    numbers |= {"champion_seconds_per_pair": seconds[1], "slowdown": slowdown}
    said = (
        f"{1000 * seconds[0]:.0f} ms per pair against {1000 * seconds[1]:.0f}: {slowdown:.2f} times, "
        f"at most {config.max_slowdown:g}"
    )
    return Check("speed", slowdown <= config.max_slowdown, said, numbers)


def seconds_per_pair(
    networks: Sequence[HyperpixelNetwork], engine: MatchEngine, blocks: Sequence[OpenBlock], config: EvaluateConfig
) -> list[float]:
    """Each network's time for a pair, its images included, measured in turns in this process."""
    num_pairs = sum(len(block.pairs) for block in blocks)
    fastest = [float("inf")] * len(networks)
    for turn in range(TIMED_ROUNDS + 1):
        for index, network in enumerate(networks):
            started = time.perf_counter()
            for block in blocks:
                for _ in match_block(network, engine, block, PredictionRows(), MatchOptions(config.batch_size)):
                    pass
            if turn:  # the first compiles and warms up
                fastest[index] = min(fastest[index], (time.perf_counter() - started) / num_pairs)
    return fastest


def first_pairs(shards: ShardSet, number: int) -> OpenBlock:
    """A block of a shard set's first pairs, across its shards."""
    pairs = list(islice((pair for _, shard in shards.shards for pair in shard.pairs), number))
    if not pairs:
        raise InputError(f"promotion.on: {shards.name} has no usable pair")
    return OpenBlock(range(len(pairs)), pairs, shards.read)


def _values(scores: MethodScores, metric: str) -> dict[int, float]:
    rows = scores.scores.select(["number", "metric", "value"]).to_pylist()
    return {row["number"]: row["value"] for row in rows if row["metric"] == metric}


def word_of(passed: bool) -> str:
    """The word in tags and tables for whether a check was passed."""
    return "passed" if passed else "refused"
