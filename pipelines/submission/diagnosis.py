"""Sends the job by which a cluster is examined, and reads its report."""

from __future__ import annotations

import dataclasses
import json
import shlex
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from dhpf.errors import InputError
from dhpf.pipelines.submission.examination import REPORT_MARK, Check, Examination, Report
from dhpf.pipelines.submission.job_server import ENDED, JobServer
from dhpf.pipelines.submission.upload import said_size

JOB_SECONDS = 300.0

QUICK_ANSWERS: Mapping[str, str] = MappingProxyType(
    {
        "DHPF_S3_PATIENCE": "15",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    }
)
"""So that what does not answer is said soon, instead of being waited for as a long run does."""

_NUM_LINES = 5


def diagnose(server: JobServer, folder: Path, wanted: Examination) -> Report:
    """Examines a cluster by a job.

    Args:
        folder: what is sent, see dhpf.pipelines.submission.upload.

    Raises:
        InputError: the job did not give a report.
    """
    job = f"doctor-{uuid.uuid4().hex[:12]}"
    plain = json.dumps(dataclasses.asdict(wanted))
    command = f"exec {shlex.join(['python', '-m', 'dhpf.pipelines.submission.doctor', plain])}"
    server.submit(job, command, folder, variables=QUICK_ANSWERS)
    ended = server.wait(job, JOB_SECONDS)
    if ended.status not in ENDED:
        server.stop(job)
        raise InputError(
            f"job {job}: no answer within {JOB_SECONDS:.0f} s, it is {ended.status.value.lower()}; look at the "
            f"dashboard, {server.address}, whether the head can start processes"
        )
    report = _report_in(server.log(job))
    if report is None:
        said = " | ".join((server.log(job) or ended.message or "nothing").strip().splitlines()[-_NUM_LINES:])
        raise InputError(
            f"job {job}: the cluster cannot run dhpf ({said}); install its dependencies on every node, Ray "
            "in the version that runs there"
        )
    server.forget(job)
    sent = Check("upload", True, said_size(folder))
    token = Check("address", True, f"{server.address} answers and takes this machine's token")
    return dataclasses.replace(report, cluster=[token, sent, *report.cluster])


def _report_in(log: str) -> Report | None:
    lines = [line for line in log.splitlines() if line.startswith(REPORT_MARK)]
    return Report.from_plain(json.loads(lines[-1].removeprefix(REPORT_MARK))) if lines else None
