"""Each check of a promotion by itself, on numbers made for it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dhpf.checkpoint import build_network
from dhpf.config import ModelConfig
from dhpf.errors import InputError
from dhpf.model.engines.choose import choose_engine
from dhpf.model.network import HyperpixelNetwork
from dhpf.pipelines.config import EvaluateConfig, PromotionConfig
from dhpf.pipelines.inputs.block_source import OpenBlock
from dhpf.pipelines.inputs.shard_set import ShardSet
from dhpf.pipelines.outputs.tables import PREDICTIONS, SCORES, table_of
from dhpf.pipelines.promotion.checks import (
    first_pairs,
    parity_check,
    pck_check,
    seconds_per_pair,
    speed_check,
)
from dhpf.pipelines.stages.evaluate import MethodScores

CONFIG = PromotionConfig(on=("a/test",), resamples=1000)
METRIC = "PCK@0.1 image"


def scores(values: Any) -> MethodScores:
    rows = [
        {"number": n, "pair_id": str(n), "category": "", "metric": metric, "value": value}
        for n, value in reversed(list(enumerate(values)))
        for metric, value in (("PCK@0.05 image", 0.0), (METRIC, float(value)))
    ]
    return MethodScores("a/test", "m", table_of([], PREDICTIONS), table_of(rows, SCORES), {})


def hard_and_easy(number: int = 200) -> Any:
    return np.random.default_rng(0).uniform(0, 0.9, size=number)


def test_a_fall_beyond_the_interval_is_refused() -> None:
    """A fall of a tenth of the spread of the pairs, but the same in every pair."""
    champion = hard_and_easy() + 0.03
    check = pck_check(CONFIG, METRIC, scores(champion - 0.03), scores(champion))
    assert not check.passed
    assert check.name == "pck a/test"
    assert check.numbers["difference"] == pytest.approx(-0.03)
    assert check.numbers["low"] == pytest.approx(-0.03) == check.numbers["high"]
    assert check.numbers["champion_pck"] == pytest.approx(champion.mean())
    assert "-3.0 [-3.0, -3.0] at 95 %, 200 pairs" in check.said


def test_a_fall_that_chance_explains_passes_and_a_rise_does() -> None:
    champion = hard_and_easy()
    noise = np.random.default_rng(1).normal(0, 0.1, size=200)
    slightly_worse = champion + noise - noise.mean() - 0.005
    check = pck_check(CONFIG, METRIC, scores(slightly_worse), scores(champion))
    assert check.passed and check.numbers["difference"] == pytest.approx(-0.005)
    assert check.numbers["low"] < -0.005 < 0 <= check.numbers["high"]
    assert pck_check(CONFIG, METRIC, scores(champion + 0.05), scores(champion)).passed


def test_the_same_fall_is_refused_on_enough_pairs() -> None:
    outcomes = []
    for number in (20, 20_000):
        noise = np.random.default_rng(2).normal(0, 0.1, size=number)
        champion = hard_and_easy(number)
        outcomes.append(pck_check(CONFIG, METRIC, scores(champion + noise - noise.mean() - 0.01), scores(champion)))
    assert [check.passed for check in outcomes] == [True, False]


def test_the_first_version_is_held_to_the_least_pck_alone() -> None:
    config = PromotionConfig(on=("a/test",), least_pck=0.5)
    low, high = (pck_check(config, METRIC, scores(np.full(10, value)), None) for value in (0.4, 0.6))
    assert (low.passed, high.passed) == (False, True)
    assert "difference" not in low.numbers and low.numbers["pck"] == pytest.approx(0.4)
    better_than_nothing = pck_check(config, METRIC, scores(np.full(10, 0.4)), scores(np.full(10, 0.3)))
    assert not better_than_nothing.passed, "a champion that is worse does not lower the bar"


def test_a_benchmark_without_a_pair_with_keypoints_is_refused() -> None:
    with pytest.raises(InputError, match="a/test has no pair with PCK@0.1 image"):
        pck_check(CONFIG, METRIC, scores([]), None)


def test_speed_is_held_to_the_champions() -> None:
    allowed, refused, first = (speed_check(CONFIG, seconds) for seconds in ([0.12, 0.1], [0.13, 0.1], [9.0]))
    assert (allowed.passed, refused.passed, first.passed) == (True, False, True)
    assert refused.numbers["slowdown"] == pytest.approx(1.3)
    assert "1.30 times, at most 1.25" in refused.said and "nothing to compare with" in first.said


@pytest.fixture(scope="module")
def network() -> HyperpixelNetwork:
    return build_network(ModelConfig(selection="fixed", layers=(8, 11), image_side=128))


@pytest.fixture(scope="module")
def block(training_sets: tuple[ShardSet, ShardSet]) -> OpenBlock:
    return first_pairs(training_sets[1], 2)


def test_an_engine_that_errs_is_refused(network: HyperpixelNetwork, block: OpenBlock) -> None:
    engine = choose_engine("torch")
    right = parity_check(network, engine, [block, block])
    assert right.passed and right.numbers["deviation"] < 1e-5 and "4 pairs" in right.said

    def one_cell_beside(problem: Any) -> Any:
        found = engine(problem)
        found.target[0, 1800] = (found.target[0, 1800] + 7) % 3600
        return found

    wrong = parity_check(network, one_cell_beside, [block])
    assert not wrong.passed and wrong.numbers["deviation"] > 1e-3


def test_the_slower_of_two_is_seen(
    network: HyperpixelNetwork, block: OpenBlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = build_network(network.config)
    describe = slow.describe
    turns: list[str] = []

    def watched(name: str, function: Any, times: int) -> Any:
        def described(images: Any) -> Any:
            turns.append(name)
            return [function(images) for _ in range(times)][0]

        return described

    monkeypatch.setattr(network, "describe", watched("fast", network.describe, 1))
    monkeypatch.setattr(slow, "describe", watched("slow", describe, 30))
    config = EvaluateConfig(on=("a/test",), methods={"m": {}})
    seconds = seconds_per_pair([slow, network], choose_engine("torch"), [block], config)
    assert seconds[0] > 1.5 * seconds[1] > 0
    assert [name for name, before in zip(turns, ["", *turns], strict=False) if name != before] == ["slow", "fast"] * 6


def test_a_benchmarksfirst_pairs_are_taken_across_its_shards(training_sets: tuple[ShardSet, ShardSet]) -> None:
    train = training_sets[0]
    shard = train.shards[0][1]
    twice = SimpleNamespace(name="x", shards=(("0", shard), ("1", shard)), read=train.read)
    assert len(first_pairs(twice, len(shard) + 3).pairs) == len(shard) + 3  # type: ignore[arg-type]
    with pytest.raises(InputError, match="x has no usable pair"):
        first_pairs(SimpleNamespace(name="x", shards=(), read=None), 1)  # type: ignore[arg-type]
