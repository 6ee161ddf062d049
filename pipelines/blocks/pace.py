"""How long a worker may take for a block before it counts as stuck: far longer than such blocks have taken so far."""

from __future__ import annotations

from collections import deque
from statistics import median

TIMES_AS_LONG = 20
"""A block is stuck when it takes so many times as long as most blocks, per pair."""

FIRST_PACE = 0.5
"""Seconds a pair that are assumed until a block is done: generous, with `TIMES_AS_LONG`, for any network on a CPU."""

MOST_DOUBLINGS = 6
"""A block that is begun again may take twice as long, so often: a limit that was too short corrects itself."""


class Pace:
    """The pace of a stage's blocks.

    Args:
        least: seconds that any block may take.
    """

    def __init__(self, least: float) -> None:
        self._least = least
        self._seconds_per_pair: deque[float] = deque(maxlen=101)

    def note(self, num_pairs: int, seconds: float) -> None:
        """Learns how long a block took."""
        self._seconds_per_pair.append(seconds / max(1, num_pairs))

    def limit(self, num_pairs: int, attempt: int) -> float:
        """Seconds that a block of so many pairs may take when it is begun for this time, from 1."""
        pace = median(self._seconds_per_pair) if self._seconds_per_pair else FIRST_PACE
        return max(self._least, TIMES_AS_LONG * pace * num_pairs) * 2.0 ** min(attempt - 1, MOST_DOUBLINGS)
