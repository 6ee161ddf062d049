"""`dhpf submit`: a workflow as a job of a Ray cluster, from any machine that reaches the cluster's dashboard."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dhpf.errors import InputError
from dhpf.pipelines.commands.answers import DONE, FAILED, INTERRUPTED, Answer, complain, pass_on
from dhpf.pipelines.commands.doctor import show_report
from dhpf.pipelines.commands.options import (
    DEFAULT_DATA,
    DEFAULT_WORK,
    AsJson,
    Dashboard,
    DataFolder,
    Only,
    Quiet,
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
from dhpf.storage import location_of

if TYPE_CHECKING:
    from dhpf.pipelines.submission.job_server import JobServer
    from dhpf.pipelines.submission.submission import Submission

Wait = Annotated[bool, typer.Option("--wait", help="Wait until the job has ended; its exit status is the command's.")]
Follow = Annotated[bool, typer.Option("--follow", help="Print the job's log as it comes, and wait.")]


def submit(
    workflow: WorkflowName,
    address: Dashboard = None,
    set_: Settings = None,
    name: RunName = None,
    only: Only = None,
    restart: Restart = None,
    retry_errors: RetryErrors = False,
    wait: Wait = False,
    follow: Follow = False,
    file: WorkflowFile = None,
    work: WorkFolder = DEFAULT_WORK,
    data: DataFolder = DEFAULT_DATA,
    tracking: Tracking = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Run a workflow on a Ray cluster, as a job that goes on when this machine is switched off."""
    from dhpf.pipelines.progress import doing
    from dhpf.pipelines.workflow_file import workflow_file

    require_stage("--only", only)
    require_stage("--restart", restart)
    answer = Answer(quiet, as_json)
    with doing("loading Ray's client"):
        from dhpf.pipelines.submission.job_server import JobServer, require_dashboard

    require_dashboard(address)
    submission = _submission(workflow, workflow_file(file), set_ or [], name, (work, data, tracking), (only, restart))
    submission = dataclasses.replace(submission, retry_errors=retry_errors)
    with doing(f"asking {address}"):
        server = JobServer(address)
    job, joined = _submitted(server, submission, workflow_file(file), answer)
    _show_job(answer, server, submission, job, joined=joined)
    return watch(answer, server, job, follow=follow) if wait or follow else DONE


def _submission(
    workflow: str,
    file: Path,
    settings: list[str],
    name: str | None,
    places: tuple[str, str, str | None],
    stages: tuple[str | None, str | None],
) -> Submission:
    from dhpf.pipelines.outputs.shared_work import require_no_password, require_server
    from dhpf.pipelines.submission.submission import (
        Submission,
        refers_to,
        require_known_everywhere,
    )
    from dhpf.pipelines.workflow_file import load_workflow

    (work, data, tracking), (only, restart) = places, stages
    require_known_everywhere("--work", work)
    require_no_password("--tracking", tracking)
    require_server(location_of(work), tracking)
    data_folder = place_of("--data", data)
    loaded = load_workflow(file, workflow, settings, data_folder)
    reads_data = refers_to(loaded, data_folder)
    if reads_data:
        require_known_everywhere("--data", data)
    return Submission(
        workflow=loaded,
        name=name or loaded.name,
        folder=run_folder(work, loaded.name, name),
        work=work,
        data=data if reads_data else None,
        settings=settings,
        tracking=tracking,
        only=only,
        restart=restart,
    )


def _submitted(server: JobServer, submission: Submission, file: Path, answer: Answer) -> tuple[str, bool]:
    """The job's id, and whether an earlier submission of the same began it; looks at the cluster before a new one."""
    from dhpf.pipelines.progress import doing
    from dhpf.pipelines.submission.diagnosis import diagnose
    from dhpf.pipelines.submission.submission import begin, job_for
    from dhpf.pipelines.submission.upload import pack, said_size

    job, joined = job_for(server, submission)
    if joined:
        return job, True
    with tempfile.TemporaryDirectory(prefix="dhpf") as folder:
        pack(file, Path(folder))
        with doing(f"sending {said_size(Path(folder))}, looking at the cluster"):
            report = diagnose(server, Path(folder), submission.examination(job))
        if not report.ready:
            show_report(answer, report)
            raise InputError("the cluster is not ready for this run, see above; nothing was submitted")
        for where, check in report.rows:
            if not check.ok:
                complain(f"warning: {where}, {check.what}: {check.found}; {check.remedy}")
        return job, not begin(server, submission, Path(folder), job)


def _show_job(answer: Answer, server: JobServer, submission: Submission, job: str, *, joined: bool) -> None:
    answer.facts({"job": job, "joined": joined, "address": server.address, "outputs": str(submission.folder)})
    answer.text(
        f"{job}: {'is there already, this joins it' if joined else 'submitted'}",
        f"  outputs   {submission.folder}",
        f"  look      dhpf logs {job} --follow --address {server.address}",
    )


def watch(answer: Answer, server: JobServer, job: str, *, follow: bool) -> int:
    """Waits until a job has ended; its driver's exit status."""
    if follow:
        server.follow(job, lambda text: pass_on(text, sys.stderr))
    ended = server.wait(job)
    status = ended.status.value
    if status == "STOPPED":
        complain(f"job {job}: stopped")
        return INTERRUPTED
    if status == "SUCCEEDED":
        answer.text(f"{job}: done")
        return DONE
    code = _exit_status(ended.driver_exit_code)
    said = [] if follow else [line for line in server.log(job).splitlines() if line.startswith("dhpf: ")]
    for line in said:
        complain(line.removeprefix("dhpf: "))
    if not said:
        complain(f"job {job}: failed, exit status {code}; submit it again and it goes on from here")
    return code


def _exit_status(code: int | None) -> int:
    """Of a driver that failed, as a shell would say it; one that was lost has none of its own."""
    if not code:
        return FAILED
    return code if code > 0 else 128 - code  # minus a signal's number
