"""A storm's deck is what the seed says."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from benchmarks.chaos.storm import deck


@pytest.mark.parametrize("kills", [4, 10, 200])
def test_the_deck_has_as_many_kills_as_wanted_of_every_kind(kills: int) -> None:
    counts = Counter(deck(Random(7), kills, 3))
    assert counts.total() == kills + 3 and counts["stop"] == 3
    assert set(counts) == {"worker", "driver", "raylet", "store", "stop"}
    assert deck(Random(7), kills, 3) == deck(Random(7), kills, 3) != deck(Random(8), kills, 3)
