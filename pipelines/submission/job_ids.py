"""Names jobs after what they do, so that jobs that would do the same meet."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

from ray.job_submission import JobDetails

from dhpf.manifest import canonical_json
from dhpf.pipelines.config import Workflow
from dhpf.pipelines.submission.job_server import ENDED


def work_id(workflow: Workflow, name: str, facts: Sequence[str | None]) -> str:
    """NAME-DIGEST: the same for the same work.

    Args:
        name: of the run.
        facts: whatever else decides what the job does: the code's version, where its outputs go, ...
    """
    content = workflow_content(workflow) + canonical_json(list(facts))
    return f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"


def workflow_content(workflow: Workflow) -> bytes:
    """All that a workflow says, as JSON."""
    return canonical_json(dataclasses.asdict(workflow))


def next_job(work: str, jobs: Sequence[JobDetails]) -> tuple[str, bool]:
    """The job that does some work now, and whether it is there already.

    An id stays taken when its job has ended. So a new job's number is the first above those of all ended jobs of the
    same work: whoever asks at the same time gets the same id.

    Args:
        work: its id.
        jobs: all that the cluster knows.
    """
    next_number = 0
    for job in jobs:
        base, _, number = (job.submission_id or "").rpartition("-")
        if base == work and number.isdigit():
            if job.status not in ENDED:
                return f"{work}-{number}", True
            next_number = max(next_number, int(number) + 1)
    return f"{work}-{next_number}", False
