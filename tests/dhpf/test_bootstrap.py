import math

import numpy as np
import pytest

from dhpf import bootstrap
from dhpf.bootstrap import paired_difference

OPTIONS = {"confidence": 0.95, "resamples": 4000, "seed": 0}


def test_two_pairs_by_hand() -> None:
    """Of differences 0 and 1 the resampled means are 0, 1/2, 1/2, 1, each with probability 1/4."""
    first, second = np.array([0.5, 1.0]), np.array([0.5, 0.0])
    wide = paired_difference(first, second, confidence=0.95, resamples=4000, seed=0)
    assert (wide.mean, wide.low, wide.high) == (0.5, 0.0, 1.0)
    narrow = paired_difference(first, second, confidence=0.4, resamples=4000, seed=0)
    assert (narrow.mean, narrow.low, narrow.high) == (0.5, 0.5, 0.5)


def test_the_interval_is_that_of_theory() -> None:
    random = np.random.default_rng(1)
    second = random.uniform(size=900)
    first = second + random.normal(0.02, 0.1, size=900)
    found = paired_difference(first, second, **OPTIONS)
    spread = float(np.std(first - second)) / math.sqrt(900)
    assert found.mean == pytest.approx(np.mean(first - second))
    assert found.low == pytest.approx(found.mean - 1.96 * spread, abs=0.1 * spread)
    assert found.high == pytest.approx(found.mean + 1.96 * spread, abs=0.1 * spread)


def test_what_makes_pairs_hard_cancels() -> None:
    """Values spread over the whole range, yet a constant difference is sure."""
    second = np.linspace(0, 0.9, 50)
    found = paired_difference(second + 0.05, second, **OPTIONS)
    assert (found.low, found.high) == pytest.approx((0.05, 0.05))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(2)
    held = 0
    for seed in range(300):
        differences = random.exponential(1.0, size=80) - 1.0
        found = paired_difference(differences, np.zeros(80), confidence=0.9, resamples=400, seed=seed)
        held += found.low <= 0 <= found.high
    assert 0.83 <= held / 300 <= 0.95


def test_the_same_seed_gives_the_same_interval() -> None:
    random = np.random.default_rng(3)
    first, second = random.uniform(size=(2, 40))
    again = [paired_difference(first, second, confidence=0.9, resamples=500, seed=seed) for seed in (0, 0, 1)]
    assert again[0] == again[1] != again[2]


def test_draws_in_several_parts_are_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "DRAWN_AT_ONCE", 7)
    means = bootstrap._resampled_means(np.arange(3.0), 11, np.random.default_rng(0))
    assert means.shape == (11,) and (means >= 0).all() and (means <= 2).all()


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ([], [], "one or more pairs"),
        ([1.0], [1.0, 2.0], "one or more pairs"),
        ([1.0, float("nan")], [1.0, 2.0], "not finite"),
    ],
)
def test_values_that_do_not_pair_up_are_refused(first: list[float], second: list[float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        paired_difference(np.array(first), np.array(second), **OPTIONS)
