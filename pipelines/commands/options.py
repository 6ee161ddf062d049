"""Options and arguments that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from dhpf.errors import InputError
from dhpf.storage import Location, location_of
from dhpf.storage.bucket import is_uri, require_uri

FOLDERS, OUTPUT = "Folders", "What is printed"
"""Groups of options in a command's help."""


def _workflow_names(typed: str) -> list[str]:
    """The names of the workflows, for shell completion."""
    from dhpf.pipelines.workflow_file import read_workflows, workflow_file

    try:
        return [name for name in read_workflows(workflow_file(None)) if name.startswith(typed)]
    except InputError:
        return []


DEFAULT_WORK = "dhpf-work"
DEFAULT_DATA = os.environ.get("DHPF_DATA", "datasets")

WorkflowName = Annotated[
    str,
    typer.Argument(metavar="WORKFLOW", help="Name of the workflow.", autocompletion=_workflow_names),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="STAGE.KEY=VALUE",
        help="Change a setting of the workflow, as often as wanted.",
        show_default=False,
    ),
]
RunName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Name of this run and of its folder below --work, instead of the workflow's: so that runs with other "
        "settings live beside each other.",
    ),
]
WorkflowFile = Annotated[
    Path | None,
    typer.Option(
        "--file",
        help="Workflow file. Without it workflows.yaml of this folder, or else the one that dhpf brings.",
        rich_help_panel=FOLDERS,
    ),
]
WorkFolder = Annotated[
    str,
    typer.Option(
        "--work",
        metavar="FOLDER|URI",
        help="Folder or s3:// URI of outputs and of the model registry.",
        rich_help_panel=FOLDERS,
    ),
]
DataFolder = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="FOLDER|URI",
        help="Folder or s3:// URI of the data sets; $DHPF_DATA sets the default.",
        rich_help_panel=FOLDERS,
    ),
]
Tracking = Annotated[
    str | None,
    typer.Option(
        "--tracking",
        envvar="MLFLOW_TRACKING_URI",
        metavar="URI",
        help="MLflow's server, such as http://HOST:5000. Without it runs and models are kept in the --work folder.",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(envvar="RAY_ADDRESS", help="Address of a Ray cluster. Without it one is started on this machine."),
]
Dashboard = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar=["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"],
        metavar="http://HEAD:8265",
        help="Dashboard of a Ray cluster.",
    ),
]
Only = Annotated[str | None, typer.Option(metavar="STAGE", help="Run this stage alone.")]
Restart = Annotated[str | None, typer.Option(metavar="STAGE", help="Delete this stage's output first.")]
RetryErrors = Annotated[
    bool,
    typer.Option("--retry-errors", help="Try failed pairs again, also where all is complete; whatever is good stays."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print facts as JSON.", rich_help_panel=OUTPUT)]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="Print errors and nothing else; with --json, the facts.", rich_help_panel=OUTPUT
    ),
]


def place_of(option: str, text: str) -> Location:
    """The folder or bucket that an option names; relative paths are relative to the current folder.

    Raises:
        InputError: a URI that cannot be used.
    """
    if is_uri(text):
        require_uri(text, option)
        return location_of(text)
    return location_of(Path(text).resolve())


def run_folder(work: str, workflow: str, name: str | None) -> Location:
    """The folder of a run: below the work folder, under the run's name or its workflow's.

    Raises:
        InputError: the name cannot be that of a folder.
    """
    from dhpf.pipelines.config import require_name

    if name is not None:
        require_name("--name", name)
    return place_of("--work", work) / (name or workflow)


def require_stage(option: str, stage: str | None) -> None:
    """Refuses what is no stage.

    Raises:
        InputError: see above, with the nearest name.
    """
    from dhpf.config import nearest_name
    from dhpf.pipelines.config import STAGES

    if stage is not None and stage not in STAGES:
        raise InputError(f"{option} {stage}: no such stage; {nearest_name(stage, STAGES)}")
