"""`dhpf run`: runs a workflow and says what came of it, or says what it would take."""

from __future__ import annotations

import dataclasses
import shlex
import time
import traceback
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dhpf.errors import InputError, redacted
from dhpf.pipelines.commands.answers import DONE, LEFT_OUT, Answer, Unforeseen, complain
from dhpf.pipelines.commands.options import (
    DEFAULT_DATA,
    DEFAULT_WORK,
    AsJson,
    DataFolder,
    Only,
    Quiet,
    RayAddress,
    Restart,
    RetryErrors,
    RunName,
    Settings,
    Tracking,
    WorkflowFile,
    WorkflowName,
    WorkFolder,
    place_of,
    require_stage,
    run_folder,
)

if TYPE_CHECKING:
    from dhpf.pipelines.blocks.retrying import Retried
    from dhpf.pipelines.stage_runs.context import Outcome, StageContext
    from dhpf.pipelines.workflow import WorkflowRun
    from dhpf.storage import Location

STAGE_WIDTH = 10
"""Columns that a stage's name takes at the beginning of a line."""

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would run and what it takes, and run nothing.")]


def run(
    workflow: WorkflowName,
    set_: Settings = None,
    name: RunName = None,
    only: Only = None,
    restart: Restart = None,
    retry_errors: RetryErrors = False,
    dry_run: DryRun = False,
    address: RayAddress = None,
    file: WorkflowFile = None,
    work: WorkFolder = DEFAULT_WORK,
    data: DataFolder = DEFAULT_DATA,
    tracking: Tracking = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Run a workflow; what is complete is left as it is."""
    from dhpf.pipelines.cluster import needed_cpus, ray_cluster, set_ray_environment
    from dhpf.pipelines.outputs.lease import held_lease
    from dhpf.pipelines.progress import doing
    from dhpf.pipelines.workflow_file import load_workflow, workflow_file

    require_stage("--only", only)
    require_stage("--restart", restart)
    answer = Answer(quiet, as_json)
    loaded = load_workflow(workflow_file(file), workflow, set_ or [], place_of("--data", data))
    folder = run_folder(work, loaded.name, name)
    place = place_of("--work", work)
    set_ray_environment(address)
    with doing("loading torch, Ray and MLflow"):
        from dhpf.pipelines.blocks.retrying import Retry
        from dhpf.pipelines.tracking.tracker import Tracker
        from dhpf.pipelines.workflow import WorkflowRun

    tracker = Tracker(place, tracking)
    running = WorkflowRun(loaded, folder, tracker, Retry() if retry_errors else None)
    if dry_run:
        running.stages(only)
        _show_plan(answer, folder.name, running.context, only)
        return DONE
    with held_lease(folder):
        if restart:
            _remove(folder / restart)
        with doing("checking settings and models"):
            running.check(only)
        with ray_cluster(address, needed_cpus(loaded), place, tracker.uri, running.stages(only)):
            outcome = _outcome(running, only)
    _show_summary(answer, folder.name, outcome, folder, tracker.uri)
    if retry_errors:
        _show_retried(answer, outcome.retried)
    return _said_what_is_left_out(outcome, folder)


def _outcome(running: WorkflowRun, only: str | None) -> Outcome:
    """Runs the stages; of an error that nobody foresaw, the traceback goes into a file, whichever process raised it.

    Raises:
        InputError: as the stages do.
        Unforeseen: any other error, in one sentence.
    """
    from dhpf.pipelines.tracking.tracker import short_text

    try:
        return running.run(only)
    except InputError:
        raise
    except Exception as error:
        cause = getattr(error, "cause", None) or error  # Ray puts its own around what a worker raised
        notes = "".join(f" {note}" for note in getattr(cause, "__notes__", []))
        place = running.folder / "errors" / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}.txt"
        where = f"all of it is in {place}"
        try:
            place.put(redacted("".join(traceback.format_exception(error))).encode("utf-8", "replace"))
        except (InputError, OSError) as not_kept:
            where = f"all of it could not be kept ({not_kept})"
        raise Unforeseen(
            f"{type(cause).__name__}{notes}: {short_text(cause)}; {where}; what is done stays, the same command goes "
            "on from here"
        ) from error


def _said_what_is_left_out(outcome: Outcome, folder: Location) -> int:
    """Says which pairs have no result, and why; returns the exit status."""
    from dhpf.planning.plan_summary import counted

    if outcome.num_rejected:
        complain(
            f"{counted(outcome.num_rejected, 'pair')} rejected as input; the first: {outcome.first_rejection}; "
            f"all in {folder}/**/rejects.parquet"
        )
    if outcome.num_failed:
        complain(
            f"{counted(outcome.num_failed, 'pair')} failed to match; the first: {outcome.first_failure}; "
            f"all in the column status of the tables in {folder / 'match'}"
        )
    return LEFT_OUT if outcome.num_rejected or outcome.num_failed else DONE


def _remove(folder: Location) -> None:
    from dhpf.pipelines.outputs.store import remove_outputs

    try:
        remove_outputs(folder)
    except OSError as error:
        raise InputError(f"--restart: {error.filename} cannot be removed ({error.strerror})") from error


def _show_plan(answer: Answer, name: str, context: StageContext, only: str | None) -> None:
    from dhpf.pipelines.dry_run import planned_outputs

    outputs = list(planned_outputs(context, only))
    answer.facts({"workflow": name, "outputs": [dataclasses.asdict(output) for output in outputs]})
    rows = [
        (output.stage, output.title, output.state, "-" if output.num_pairs is None else f"{output.num_pairs:,}")
        for output in outputs
    ]
    answer.table(["stage", "output", "state", "pairs"], rows)
    for output in outputs:
        if output.estimate:
            answer.text(f"{output.title}:", *output.estimate)


def _show_summary(answer: Answer, name: str, outcome: Outcome, folder: Location, tracking_uri: str) -> None:
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
            "retried": {title: dataclasses.asdict(retried) for title, retried in outcome.retried.items()},
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
    if any(report.stage in ("match", "evaluate") for report in outcome.reports):
        _text(answer, "look", f"dhpf gallery {shlex.quote(str(folder))}")
    _text(answer, "tracking", _tracking_line(outcome, tracking_uri))
    registered = next((report.facts["model"] for report in outcome.reports if "version" in report.facts), None)
    if registered is not None:
        _text(answer, "next", f"dhpf match A.jpg B.jpg --model models:/{registered}@latest-trained")


def _show_retried(answer: Answer, results: Mapping[str, Retried]) -> None:
    """Says what came of the pairs that had failed before."""
    from dhpf.planning.plan_summary import counted

    for title, retried in results.items():
        done = "sharded" if title.startswith("shard ") else "matched"
        num_done = retried.num_failed - retried.num_left
        of_all = f"{num_done} of {counted(retried.num_failed, 'failed pair')}"
        _text(answer, "retried", f"{title}: {of_all} {'is' if num_done == 1 else 'are'} {done} now")
    if not results:
        _text(answer, "retried", "no pair had failed")


def _tracking_line(outcome: Outcome, tracking_uri: str) -> str:
    """Where to look at the run: a server's page of it, or how to see a file's."""
    if tracking_uri.startswith("http") and not outcome.run_page:
        return f"{tracking_uri} does not answer; when it does: dhpf track sync"
    if tracking_uri.startswith("http"):
        return f"{tracking_uri.rstrip('/')}/#/{outcome.run_page}?workflowType=machine_learning"
    return f"{tracking_uri}   (look: mlflow ui --backend-store-uri {tracking_uri})"


def _text(answer: Answer, title: str, what: Any) -> None:
    answer.text(f"  {title:<{STAGE_WIDTH}}{what}")
