"""`dhpf list`, `describe` and `schema`: which workflows there are, what one would do, and the schema of the file."""

from __future__ import annotations

import dataclasses

from dhpf.pipelines.commands.answers import DONE, Answer
from dhpf.pipelines.commands.options import (
    DEFAULT_DATA,
    DEFAULT_WORK,
    AsJson,
    DataFolder,
    Quiet,
    RunName,
    Settings,
    WorkflowFile,
    WorkflowName,
    WorkFolder,
    place_of,
    run_folder,
)


def list_workflows(file: WorkflowFile = None, as_json: AsJson = False, quiet: Quiet = False) -> int:
    """List the workflows of the workflow file."""
    from dhpf.pipelines.workflow_file import read_workflows, workflow_file

    answer, read = Answer(quiet, as_json), workflow_file(file)
    summaries = {name: str(content.get("summary", "")) for name, content in read_workflows(read).items()}
    answer.facts([{"name": name, "summary": summary} for name, summary in summaries.items()])
    answer.table(["name", "summary"], list(summaries.items()), has_header=False)
    answer.text(f"from {read}")
    return DONE


def describe(
    workflow: WorkflowName,
    set_: Settings = None,
    name: RunName = None,
    file: WorkflowFile = None,
    work: WorkFolder = DEFAULT_WORK,
    data: DataFolder = DEFAULT_DATA,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Say what a workflow would do and which of its outputs are complete."""
    from dhpf.pipelines.stage_states import stage_states
    from dhpf.pipelines.workflow_file import load_workflow, workflow_file

    answer = Answer(quiet, as_json)
    loaded = load_workflow(workflow_file(file), workflow, set_ or [], place_of("--data", data))
    model, judged_on = loaded.model, loaded.promotion.on if loaded.promotion else ()
    states = stage_states(loaded, run_folder(work, loaded.name, name))
    answer.facts(
        {
            "name": loaded.name,
            "summary": loaded.summary,
            "model": dataclasses.asdict(model),
            "outputs": [{"output": output, "state": state} for output, state in states],
            "judged_on": list(judged_on),
        }
    )
    answer.text(f"{loaded.name}: {loaded.summary}")
    answer.text(f"  model: {model.backbone}, selection {model.selection}, image side {model.image_side}")
    answer.table(["output", "state"], [(f"  {output}", state) for output, state in states], has_header=False)
    if judged_on:
        answer.text(f"  promotion by {', '.join(judged_on)}: dhpf models promote {loaded.name}")
    return DONE


def schema() -> int:
    """Print the JSON schema of workflow files, by which editors check and complete them."""
    from dhpf.pipelines.workflow_schema import workflow_file_schema

    Answer(as_json=True).facts(workflow_file_schema())
    return DONE
