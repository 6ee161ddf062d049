"""A run of a workflow as a job of a cluster: what it is called, what it executes, and what has to be there for it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dhpf.errors import InputError
from dhpf.pipelines.capacity import demands_of
from dhpf.pipelines.config import StageConfig, Workflow
from dhpf.pipelines.outputs.code_version import code_version
from dhpf.pipelines.outputs.lease import JOB_VARIABLE
from dhpf.pipelines.submission.examination import Examination
from dhpf.pipelines.submission.job_ids import next_job, work_id, workflow_content
from dhpf.pipelines.submission.job_server import JobServer, JobTaken
from dhpf.pipelines.submission.upload import UPLOADED_FILE
from dhpf.storage import Location, is_uri

OUTPUTS_FACT = "dhpf.outputs"
"""What lists of jobs show of a run: where its outputs go."""


@dataclass(frozen=True)
class Submission:
    """A run that a cluster is to do.

    Attributes:
        name: of the run.
        folder: of the run, in the work folder.
        work, data: the folders or URIs as they were given; data: None if the workflow reads none.
        settings: STAGE.KEY=VALUE, as they were given; the workflow has them.
        tracking: of MLflow; None for that of the work folder.
        only, restart: the stage to run alone, the stage whose output is removed first.
        retry_errors: whether failed pairs are tried again.
    """

    workflow: Workflow
    name: str
    folder: Location
    work: str
    data: str | None
    settings: Sequence[str]
    tracking: str | None
    only: str | None
    restart: str | None
    retry_errors: bool = False

    @property
    def work_id(self) -> str:
        """The same for submissions that would do the same."""
        decisive = [code_version(), str(self.folder), self.tracking, self.only, self.restart]
        decisive += ["retry-errors"] if self.retry_errors else []
        return work_id(self.workflow, self.name, decisive)

    @property
    def _stages(self) -> Mapping[str, StageConfig]:
        stages = self.workflow.stages
        return {name: config for name, config in stages.items() if self.only in (None, name)}

    def command(self) -> str:
        """What the job executes, in the folder that was sent."""
        words = ["python", "-m", "dhpf.pipelines", "run", self.workflow.name, "--file", UPLOADED_FILE]
        words += ["--name", self.name, "--work", self.work]
        options = {"--data": self.data, "--tracking": self.tracking, "--only": self.only, "--restart": self.restart}
        words += [word for option, value in options.items() if value is not None for word in (option, value)]
        words += ["--retry-errors"] if self.retry_errors else []
        words += [word for setting in self.settings for word in ("--set", setting)]
        return f"exec {shlex.join(words)}"

    def examination(self, job: str) -> Examination:
        """What has to be looked at before it begins."""
        return Examination(
            code=code_version(),
            work=self.work,
            data=self.data,
            tracking=self.tracking,
            folder=str(self.folder),
            job=job,
            weights=((self.workflow.model.backbone, self.workflow.model.weights),),
            demands=demands_of(self._stages),
        )


def begin(server: JobServer, submission: Submission, folder: Path, job: str) -> bool:
    """Submits the job; False if another submission of the same was faster.

    Args:
        folder: what is sent, see dhpf.pipelines.submission.upload.
        job: its id.
    """
    try:
        server.submit(
            job,
            submission.command(),
            folder,
            variables={JOB_VARIABLE: job},
            facts={OUTPUTS_FACT: str(submission.folder)},
        )
    except JobTaken:
        return False
    return True


def job_for(server: JobServer, submission: Submission) -> tuple[str, bool]:
    """The id of the job that does what is wanted, and whether it is there already."""
    return next_job(submission.work_id, server.jobs())


def require_known_everywhere(option: str, place: str) -> None:
    """Refuses a place that means something on this machine only.

    Raises:
        InputError: a relative path.
    """
    if not is_uri(place) and not Path(place).is_absolute():
        raise InputError(
            f"{option} {place}: a relative path means another folder on every machine; give s3://BUCKET/PREFIX, or "
            "the absolute path of a folder that all nodes share"
        )


def refers_to(workflow: Workflow, data: Location) -> bool:
    """Whether a workflow that was loaded with this data folder reads something in it."""
    place = str(data)
    if is_uri(place):  # what lies below it has its query behind the longer path
        place = place.partition("?")[0]
    return json.dumps(place)[1:-1].encode() in workflow_content(workflow)
