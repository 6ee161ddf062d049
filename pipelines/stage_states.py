"""Reads from the files of a workflow's folder how far each output is; needs neither a cluster nor a model."""

from __future__ import annotations

from dhpf.pipelines.config import Workflow
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.storage import Location


def stage_states(workflow: Workflow, folder: Location) -> list[tuple[str, str]]:
    """(output, state) of every output that a run would make.

    Args:
        folder: of the workflow.
    """
    return [
        (f"{stage} {title}", state_of(StageOutput(folder / stage / place.folder)))
        for stage, config in workflow.stages.items()
        for title, place in config.outputs.items()
    ]


def state_of(output: StageOutput) -> str:
    """How far an output is: "complete", "begun, ..." or "to do"."""
    if output.manifest() is not None:
        return "complete"
    if not output.has_plan():
        return "to do"
    return f"begun, {len(output.missing())} tasks to do"
