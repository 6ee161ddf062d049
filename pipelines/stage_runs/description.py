"""Says in MLflow what a workflow's run did, on what, and as which job of the cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import ray

from dhpf.pipelines.config import StageConfig, Workflow
from dhpf.pipelines.outputs.code_version import code_version
from dhpf.pipelines.outputs.lease import JOB_VARIABLE
from dhpf.pipelines.stage_runs.context import Outcome, ScoreTable
from dhpf.storage import Location

JOB_TAG, RAY_JOB_TAG = "dhpf.job", "dhpf.ray_job"


def job_tags() -> dict[str, str]:
    """The job that this driver is: the one that was submitted, if one was, and Ray's own number of it."""
    submitted = os.environ.get(JOB_VARIABLE)
    tags = {} if submitted is None else {JOB_TAG: submitted}
    if ray.is_initialized():
        tags[RAY_JOB_TAG] = str(ray.get_runtime_context().get_job_id())
    return tags


def description(workflow: Workflow, stages: Mapping[str, StageConfig], folder: Location, outcome: Outcome) -> str:
    """A few lines of Markdown: what runs, on what, where its outputs lie, and what came of it so far."""
    model = workflow.model
    lines = [
        f"**{workflow.name}**: {workflow.summary}",
        "",
        f"- stages: {', '.join(stages)}",
        f"- model: {model.backbone}, images of {model.image_side} pixels, selection {model.selection}",
        f"- outputs: `{folder}`",
        f"- code: `{code_version()}`",
        *_results(outcome),
    ]
    return "\n".join(lines)


def _results(outcome: Outcome) -> Iterator[str]:
    for report in outcome.reports:
        yield from (f"- {report.stage}: {line}" for line in report.lines)
        if report.table is not None:
            yield from ("", *_rows(report.table), "")


def _rows(table: ScoreTable) -> Iterator[str]:
    yield f"| method | {' | '.join(table.columns)} |"
    yield "| --- " * (len(table.columns) + 1) + "|"
    yield from (f"| {method} | {' | '.join(values)} |" for method, values in table.rows.items())
