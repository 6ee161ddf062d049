"""The verdict on a version: as a table, as tags in the registry, and as a picture of the differences."""

from __future__ import annotations

from dataclasses import dataclass

from dhpf.drawing import Picture, draw_differences
from dhpf.pipelines.promotion.checks import Check, word_of


@dataclass(frozen=True)
class Verdict:
    """The checks of a version, and whether it passed all of them.

    Attributes:
        candidate: models:/NAME/VERSION.
        champion: the same of the version that it was compared with; None where there was no champion.
        checks: their results, in the order in which they were made.
    """

    candidate: str
    champion: str | None
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def word(self) -> str:
        return word_of(self.passed)

    @property
    def headline(self) -> str:
        """Who was compared with whom."""
        against = f"the champion {self.champion}" if self.champion else "no champion: absolute checks only"
        return f"{self.candidate} against {against}"

    def rows(self) -> list[tuple[str, str, str]]:
        """Each check: its name, "passed" or "refused", and the numbers in words."""
        return [(check.name, check.word, check.said) for check in self.checks]

    def tags(self) -> dict[str, str]:
        """The verdict and its numbers, by the names that they get among a version's tags."""
        tags = {"verdict": self.word, "champion": self.champion or "none"}
        for check in self.checks:
            tags[check.name] = f"{check.word}: {check.said}"
            tags |= {f"{check.name}/{name}": f"{value:.6g}" for name, value in check.numbers.items()}
        return tags

    def picture(self) -> Picture | None:
        """The differences from the champion with their intervals; None where there is no champion."""
        keys = ("low", "difference", "high")
        rows = {c.name: tuple(c.numbers[key] for key in keys) for c in self.checks if "difference" in c.numbers}
        if not rows:
            return None
        intervals = {name: (low, mean, high) for name, (low, mean, high) in rows.items()}
        return draw_differences(intervals, f"{self.candidate} - {self.champion}")
