"""A training that is killed, also within its saves, ends with the weights of an undisturbed one, bit for bit."""

from __future__ import annotations

import pytest

from benchmarks.chaos.training_kills import training_kills


@pytest.mark.chaos
@pytest.mark.long
def test_a_training_that_is_killed_three_times_ends_with_the_same_weights() -> None:
    trainings = list(training_kills(seed=0, num_kills=3))
    assert all(each["is_equal"] for each in trainings), trainings
    assert sum(each["kills"] for each in trainings) == 3 and trainings[0]["within_a_save"], trainings
