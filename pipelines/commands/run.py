"""`dhpf run`: runs a workflow, or says what it would take."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dhpf.errors import InputError
from dhpf.pipelines.commands.answers import DONE, REJECTS, Answer, complain
from dhpf.pipelines.commands.options import (
    DEFAULT_DATA,
    DEFAULT_FILE,
    DEFAULT_WORK,
    AsJson,
    DataFolder,
    Quiet,
    RayAddress,
    Settings,
    WorkflowFile,
    WorkflowName,
    WorkFolder,
)

if TYPE_CHECKING:
    from dhpf.pipelines.config import StageName

Only = Annotated[str | None, typer.Option(metavar="STAGE", help="Run this stage alone.")]
Restart = Annotated[str | None, typer.Option(metavar="STAGE", help="Delete this stage's output first.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what matching the collections takes, and run nothing.")]


def run(
    workflow: WorkflowName,
    set_: Settings = None,
    only: Only = None,
    restart: Restart = None,
    dry_run: DryRun = False,
    address: RayAddress = None,
    file: WorkflowFile = DEFAULT_FILE,
    work: WorkFolder = DEFAULT_WORK,
    data: DataFolder = DEFAULT_DATA,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Run a workflow; what is complete is left as it is."""
    from dhpf.pipelines.cluster import needed_cpus, ray_cluster, set_ray_environment
    from dhpf.pipelines.workflow_file import load_workflow

    only_stage, restarted_stage = _stage("--only", only), _stage("--restart", restart)
    answer = Answer(quiet, as_json)
    loaded = load_workflow(file, workflow, set_ or [], data.resolve())
    folder = (work / loaded.name).resolve()
    set_ray_environment(address, work)
    from dhpf.pipelines.tracking.tracker import Tracker
    from dhpf.pipelines.workflow import WorkflowRun

    tracker = Tracker(work)
    running = WorkflowRun(loaded, folder, tracker)
    if dry_run:
        lines = running.dry_run()
        answer.facts({"workflow": loaded.name, "lines": lines})
        answer.text(*lines)
        return DONE
    running.require_models(only_stage)
    if restarted_stage:
        _remove(folder / restarted_stage)
    with ray_cluster(address, needed_cpus(loaded)):
        outcome = running.run(only_stage)
    answer.facts(
        {
            "workflow": loaded.name,
            "lines": outcome.lines,
            "outputs": str(folder),
            "tracking": tracker.uri,
            "num_rejected": outcome.num_rejected,
            "first_rejection": outcome.first_rejection or None,
        }
    )
    answer.text(f"\n{loaded.name}: done", *(f"  {line}" for line in outcome.lines))
    answer.text(f"  outputs   {folder}")
    answer.text(f"  tracking  {tracker.uri}   (look: mlflow ui --backend-store-uri {tracker.uri})")
    if outcome.num_rejected:
        complain(
            f"{outcome.num_rejected} pairs rejected, all others done; the first: {outcome.first_rejection}; "
            f"all in {folder}/**/rejects.parquet and in column status of {folder / 'match'}"
        )
        return REJECTS
    return DONE


def _stage(option: str, given: str | None) -> StageName | None:
    from dhpf.config import nearest_name
    from dhpf.pipelines.config import STAGES

    found = next((stage for stage in STAGES if stage == given), None)
    if given is not None and found is None:
        raise InputError(f"{option} {given}: no such stage; {nearest_name(given, STAGES)}")
    return found


def _remove(folder: Path) -> None:
    from dhpf.pipelines.outputs.store import remove_objects

    remove_objects(folder)
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(f"--restart: {error.filename} cannot be removed ({error.strerror})") from error
