"""Prints the closing summary of `dhpf run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhpf.pipelines.commands.answers import Answer

if TYPE_CHECKING:
    from dhpf.pipelines.stage_runs.outcome import Outcome

STAGE_WIDTH = 10
"""Columns that a stage's name takes at the beginning of a line."""


def show_summary(answer: Answer, name: str, outcome: Outcome, folder: Path, tracking_uri: str) -> None:
    """Says what a run has done, where it lies, and what to look at next."""
    answer.facts(
        {
            "workflow": name,
            "stages": [{"stage": report.stage} | dict(report.facts) for report in outcome.reports if report.facts],
            "pictures": outcome.pictures,
            "outputs": str(folder),
            "tracking": tracking_uri,
            "num_rejected": outcome.num_rejected,
            "first_rejection": outcome.first_rejection or None,
            "num_failed": outcome.num_failed,
            "first_failure": outcome.first_failure or None,
        }
    )
    answer.text(f"\n{name}: done")
    for report in outcome.reports:
        title = report.stage if report.facts else ""
        for number, line in enumerate(report.lines):
            answer.text(f"  {'' if number else title:<{STAGE_WIDTH}}{line}")
        if report.table is not None:
            indent = " " * (STAGE_WIDTH + 2)
            rows = [(f"{indent}{method}", *values) for method, values in report.table.rows.items()]
            answer.table([f"{indent}method", *report.table.columns], rows)
    for number, (stage, pictures) in enumerate(outcome.pictures.items()):
        _text(answer, "" if number else "pictures", f"{stage}: {pictures}")
    _text(answer, "outputs", folder)
    _text(answer, "tracking", f"{tracking_uri}   (look: mlflow ui --backend-store-uri {tracking_uri})")
    registered = next((report.facts["model"] for report in outcome.reports if "version" in report.facts), None)
    if registered is not None:
        _text(answer, "next", f"dhpf match A.jpg B.jpg --model models:/{registered}@latest-trained")


def _text(answer: Answer, title: str, what: Any) -> None:
    answer.text(f"  {title:<{STAGE_WIDTH}}{what}")
