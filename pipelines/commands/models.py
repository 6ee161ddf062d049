"""`dhpf models`: registered models listed, compared with the champion, promoted and rolled back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dhpf.pipelines.commands.answers import DONE, REFUSED, Answer, complain
from dhpf.pipelines.commands.options import (
    DEFAULT_DATA,
    DEFAULT_WORK,
    AsJson,
    DataFolder,
    Quiet,
    RayAddress,
    RunName,
    Settings,
    Tracking,
    WorkflowFile,
    WorkflowName,
    WorkFolder,
    place_of,
    run_folder,
)

Version = Annotated[str, typer.Argument(help="Number or alias of a version of the workflow's model.")]

commands = typer.Typer()


@commands.command("list")
def list_models(
    name: Annotated[str | None, typer.Argument(help="Registered model; all of them, if none is named.")] = None,
    work: WorkFolder = DEFAULT_WORK,
    tracking: Tracking = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """List versions with their aliases, metrics and verdicts."""
    from dhpf.pipelines.promotion.listing import COLUMNS, version_rows
    from dhpf.pipelines.promotion.registry import Registry
    from dhpf.pipelines.tracking.tracker import Tracker

    listed, answer = version_rows(Registry(Tracker(place_of("--work", work), tracking)), name), Answer(quiet, as_json)
    answer.facts([row.facts() for rows in listed.values() for row in rows])
    if not listed:
        answer.text("no registered models yet; a workflow that trains registers one")
    for model, rows in listed.items():
        answer.text(model)
        answer.table(COLUMNS, [row.cells() for row in rows])
    return DONE


@commands.command()
def compare(
    workflow: WorkflowName,
    version: Version = "latest-trained",
    set_: Settings = None,
    name: RunName = None,
    address: RayAddress = None,
    file: WorkflowFile = None,
    work: WorkFolder = DEFAULT_WORK,
    data: DataFolder = DEFAULT_DATA,
    tracking: Tracking = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Judge a version by the workflow's promotion settings, against the champion, which stays."""
    answer = Answer(quiet, as_json)
    return _judge(workflow, version, set_ or [], name, address, file, work, data, tracking, answer, promote=False)


@commands.command()
def promote(
    workflow: WorkflowName,
    version: Version = "latest-trained",
    set_: Settings = None,
    name: RunName = None,
    address: RayAddress = None,
    file: WorkflowFile = None,
    work: WorkFolder = DEFAULT_WORK,
    data: DataFolder = DEFAULT_DATA,
    tracking: Tracking = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Judge a version as `compare` does, and make it champion if it passes."""
    answer = Answer(quiet, as_json)
    return _judge(workflow, version, set_ or [], name, address, file, work, data, tracking, answer, promote=True)


def _judge(
    workflow: str,
    reference: str,
    settings: list[str],
    name: str | None,
    address: str | None,
    file: Path | None,
    work: str,
    data: str,
    tracking: str | None,
    answer: Answer,
    *,
    promote: bool,
) -> int:
    from dhpf.pipelines.cluster import needed_cpus, ray_cluster, set_ray_environment
    from dhpf.pipelines.workflow_file import load_workflow, workflow_file

    loaded = load_workflow(workflow_file(file), workflow, settings, place_of("--data", data))
    place = place_of("--work", work)
    set_ray_environment(address)
    from dhpf.pipelines.promotion.contest import Contest
    from dhpf.pipelines.tracking.tracker import Tracker

    tracker = Tracker(place, tracking)
    contest = Contest(loaded, run_folder(work, loaded.name, name), tracker, reference)
    version = contest.candidate.version
    before = contest.champion.version if contest.champion else None
    facts = {"model": contest.name, "version": version, "champion_before": before}
    if contest.is_decided:
        answer.facts(facts | {"champion": before, "verdict": None})
        answer.text(f"models:/{contest.name}/{version} is the champion already")
        return DONE
    with ray_cluster(address, needed_cpus(loaded), place, tracker.uri):
        verdict = contest.promote() if promote else contest.compare()
    champion = version if promote and verdict.passed else before
    answer.facts(facts | {"champion": champion, "verdict": verdict.tags()})
    answer.text(verdict.headline)
    answer.table(("check", "verdict", "numbers"), verdict.rows(), has_header=False)
    answer.text(f"verdict: {verdict.word}")
    if not verdict.passed:
        complain(
            f"model {contest.name}: version {version} does not hold what a champion must; "
            f"the champion stays {before or 'none'}"
        )
        return REFUSED
    if promote:
        answer.text(f"champion of {contest.name}: version {version}, before it {before or 'none'}")
    return DONE


@commands.command()
def rollback(
    name: Annotated[str, typer.Argument(help="Registered model.")] = "dhpf",
    work: WorkFolder = DEFAULT_WORK,
    tracking: Tracking = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Make the champion before the present one champion again."""
    from dhpf.pipelines.promotion.registry import Registry
    from dhpf.pipelines.tracking.tracker import Tracker

    before, now = Registry(Tracker(place_of("--work", work), tracking)).rollback(name)
    answer = Answer(quiet, as_json)
    answer.facts({"model": name, "champion": now, "champion_before": before})
    answer.text(f"champion of {name}: version {now}, rolled back from {before}")
    return DONE
