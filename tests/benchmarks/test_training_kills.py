"""A training that is killed, also within its saves, ends with the weights of an undisturbed one, bit for bit."""

from __future__ import annotations

import pytest

from benchmarks.chaos.training_kills import training_kills


@pytest.mark.chaos
@pytest.mark.long
def test_a_training_that_is_killed_three_times_ends_with_the_same_weights() -> None:
    figures = training_kills(seed=0, num_kills=3)
    assert not figures["different"] and figures["kills"] == 3 and figures["within_a_save"], figures
