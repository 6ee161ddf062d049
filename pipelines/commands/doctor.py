"""`dhpf doctor`: says whether a workflow could run, on this machine or on a cluster, and what to do if not."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dhpf.pipelines.commands.answers import BAD_INPUT, DONE, Answer
from dhpf.pipelines.commands.options import (
    DEFAULT_DATA,
    DEFAULT_WORK,
    AsJson,
    Dashboard,
    DataFolder,
    Quiet,
    Tracking,
    WorkflowFile,
    WorkFolder,
    place_of,
)

if TYPE_CHECKING:
    from dhpf.pipelines.submission.examination import Examination, Report

Workflow = Annotated[
    str | None, typer.Option("--workflow", metavar="NAME", help="Also look at what this workflow needs.")
]


def doctor(
    address: Dashboard = None,
    workflow: Workflow = None,
    file: WorkflowFile = None,
    work: WorkFolder = DEFAULT_WORK,
    data: DataFolder = DEFAULT_DATA,
    tracking: Tracking = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Look at the machines on which workflows are to run: this one, or with --address every node of a cluster."""
    from dhpf.pipelines.progress import doing

    answer = Answer(quiet, as_json)
    with doing("looking at this machine" if address is None else f"looking at every node of {address}"):
        wanted = _examination(workflow, file, work, data, tracking, is_here=address is None)
        report = _of_this_machine(wanted) if address is None else _of_cluster(address, file, wanted)
    show_report(answer, report)
    return DONE if report.ready else BAD_INPUT


def show_report(answer: Answer, report: Report) -> None:
    """Says what was seen, with the remedy of each check that failed."""
    answer.facts(dataclasses.asdict(report))
    rows = [
        (where, check.what, "ok" if check.ok else "FAILED" if check.needed else "warning", check.found)
        for where, check in report.rows
    ]
    answer.table(["where", "check", "", "found"], rows)
    for where, check in report.rows:
        if not check.ok:
            answer.text(f"{where}, {check.what}: {check.remedy}")


def _of_this_machine(wanted: Examination) -> Report:
    from dhpf.pipelines.submission.examination import Report
    from dhpf.pipelines.submission.node_checks import examine_machine

    return Report([examine_machine(wanted)])


def _of_cluster(address: str, file: Path | None, wanted: Examination) -> Report:
    from dhpf.pipelines.submission.diagnosis import diagnose
    from dhpf.pipelines.submission.job_server import JobServer
    from dhpf.pipelines.submission.upload import pack
    from dhpf.pipelines.workflow_file import workflow_file

    server = JobServer(address)
    with tempfile.TemporaryDirectory(prefix="dhpf") as folder:
        pack(workflow_file(file), Path(folder))
        return diagnose(server, Path(folder), wanted)


def _examination(
    name: str | None, file: Path | None, work: str, data: str, tracking: str | None, *, is_here: bool
) -> Examination:
    """What to look at; a folder that was not named is looked at on this machine only."""
    from dhpf.pipelines.capacity import demands_of
    from dhpf.pipelines.outputs.code_version import code_version
    from dhpf.pipelines.outputs.shared_work import require_no_password
    from dhpf.pipelines.submission.examination import Examination
    from dhpf.pipelines.submission.submission import refers_to, require_known_everywhere
    from dhpf.pipelines.workflow_file import load_workflow, workflow_file

    require_no_password("--tracking", tracking)
    has_work, has_data = is_here or work != DEFAULT_WORK, data != DEFAULT_DATA
    loaded = None
    if name is not None:
        loaded = load_workflow(workflow_file(file), name, [], place_of("--data", data))
        has_work, has_data = True, has_data or refers_to(loaded, place_of("--data", data))
    if not is_here:
        for option, place, is_looked_at in (("--work", work, has_work), ("--data", data, has_data)):
            if is_looked_at:
                require_known_everywhere(option, place)
    return Examination(
        code=code_version(),
        work=str(place_of("--work", work)) if has_work else None,
        data=str(place_of("--data", data)) if has_data else None,
        tracking=tracking,
        weights=() if loaded is None else ((loaded.model.backbone, loaded.model.weights),),
        demands=() if loaded is None or is_here else demands_of(loaded.stages),
    )
