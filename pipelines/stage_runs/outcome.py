"""Collects what the stages of a run report, for the closing summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ScoreTable:
    """Methods on one shard set.

    Attributes:
        columns: names of the scores.
        rows: method -> a text for each column.
    """

    columns: Sequence[str]
    rows: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class StageReport:
    """What a stage has to say of one of its outputs.

    Attributes:
        facts: for programs, plain values.
        lines: the same for people.
        table: shown below the lines.
    """

    stage: str
    facts: Mapping[str, Any]
    lines: Sequence[str]
    table: ScoreTable | None = None


@dataclass
class Outcome:
    """What a run did.

    Attributes:
        reports: of its stages, in order.
        num_rejected: rows of a list, or pairs of a source, that cannot be used and so were never matched.
        first_rejection: why, for the first of them.
        num_failed: pairs that the match stage took up and could not match.
        first_failure: why, for the first of them.
        pictures: where the pictures of each stage lie.
    """

    reports: list[StageReport] = field(default_factory=list)
    num_rejected: int = 0
    first_rejection: str = ""
    num_failed: int = 0
    first_failure: str = ""
    pictures: dict[str, str] = field(default_factory=dict)

    def report(self, stage: str, facts: Mapping[str, Any], *lines: str, table: ScoreTable | None = None) -> None:
        """Adds what a stage has to say."""
        self.reports.append(StageReport(stage, facts, lines, table))

    def reject(self, number: int, reason: object) -> None:
        """Counts rejected pairs or rows."""
        if number:
            self.num_rejected += number
            self.first_rejection = self.first_rejection or str(reason)

    def fail(self, number: int, reason: object) -> None:
        """Counts pairs that could not be matched."""
        if number:
            self.num_failed += number
            self.first_failure = self.first_failure or str(reason)
