"""`dhpf jobs`, `logs` and `stop`: the jobs of a Ray cluster."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dhpf.pipelines.commands.answers import DONE, Answer, pass_on
from dhpf.pipelines.commands.options import AsJson, Dashboard, Quiet

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

JobName = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job, as dhpf submit and dhpf jobs print it.")]
Follow = Annotated[bool, typer.Option("--follow", help="Print what comes, too, until the job has ended.")]

COLUMNS = ("job", "status", "exit", "began", "minutes", "outputs")


def jobs(address: Dashboard = None, as_json: AsJson = False, quiet: Quiet = False) -> int:
    """List the runs that were submitted to a cluster."""
    from dhpf.pipelines.submission.job_server import JobServer
    from dhpf.pipelines.submission.submission import OUTPUTS_FACT

    runs = [_facts(job) for job in JobServer(address).jobs() if OUTPUTS_FACT in (job.metadata or {})]
    answer = Answer(quiet, as_json)
    answer.facts(runs)
    if not runs:
        answer.text("no jobs; dhpf submit WORKFLOW submits one")
        return DONE
    answer.table(COLUMNS, [_cells(run) for run in runs])
    return DONE


def logs(job: JobName, address: Dashboard = None, follow: Follow = False, as_json: AsJson = False) -> int:
    """Print what a job has said."""
    from dhpf.pipelines.submission.job_server import JobServer

    server, answer = JobServer(address), Answer(as_json=as_json)
    server.require(job)
    if follow:
        server.follow(job, lambda text: pass_on(text, sys.stdout))
        return DONE
    log = server.log(job)
    answer.facts({"job": job, "log": log})
    answer.text(log.rstrip("\n"))
    return DONE


def stop(job: JobName, address: Dashboard = None, as_json: AsJson = False, quiet: Quiet = False) -> int:
    """Stop a job; what it has done stays, and submitting it again goes on from there."""
    from dhpf.pipelines.submission.job_server import JobServer

    server, answer = JobServer(address), Answer(quiet, as_json)
    stopped = server.stop(job)
    status = server.wait(job).status.value.lower()
    answer.facts({"job": job, "status": status})
    answer.text(f"{job}: {status}" if stopped else f"{job}: had ended already, {status}")
    return DONE


def _facts(job: JobDetails) -> dict[str, Any]:
    from dhpf.pipelines.submission.submission import OUTPUTS_FACT

    return {
        "job": job.submission_id,
        "status": job.status.value.lower(),
        "began": job.start_time and job.start_time / 1000,
        "ended": job.end_time and job.end_time / 1000,
        "exit_status": job.driver_exit_code,
        "outputs": (job.metadata or {})[OUTPUTS_FACT],
    }


def _cells(run: dict[str, Any]) -> tuple[str, ...]:
    began, ended = run["began"], run["ended"] or time.time()
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(began)) if began else "-"
    minutes = f"{(ended - began) / 60:.1f}" if began else "-"
    status = "-" if run["exit_status"] is None else str(run["exit_status"])
    return (run["job"], run["status"], status, when, minutes, run["outputs"])
