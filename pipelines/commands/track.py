"""`dhpf track`: fills in what MLflow missed of runs."""

from __future__ import annotations

import dataclasses

import typer

from dhpf.pipelines.commands.answers import DONE, Answer
from dhpf.pipelines.commands.options import DEFAULT_WORK, AsJson, Quiet, Tracking, WorkFolder, place_of

commands = typer.Typer()


@commands.callback()
def _track() -> None:
    """So that `sync` stays a command of its own while it is the only one."""


@commands.command()
def sync(
    work: WorkFolder = DEFAULT_WORK, tracking: Tracking = None, as_json: AsJson = False, quiet: Quiet = False
) -> int:
    """Fill in what MLflow lacks of the runs in a work folder, such as after it was away; nothing is there twice."""
    from dhpf.pipelines.progress import doing

    answer, place = Answer(quiet, as_json), place_of("--work", work)
    with doing("loading MLflow"):
        from dhpf.pipelines.tracking.journal import journals
        from dhpf.pipelines.tracking.player import Player
        from dhpf.pipelines.tracking.tracker import Tracker

        tracker = Tracker(place, tracking)
    tracker.require_usable()
    played = {}
    for journal in journals(place):
        with doing(f"filling in {journal.place.name}"):
            played[journal.place.name] = Player(tracker, journal).play()
    answer.facts([{"run": name, **dataclasses.asdict(counts)} for name, counts in played.items()])
    if not played:
        answer.text(f"no runs in {place}")
    for name, counts in played.items():
        answer.text(f"{name}: {counts.entries} entries and {counts.files} files were not in {tracker.uri} yet")
    return DONE
