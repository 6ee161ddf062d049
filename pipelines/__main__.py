"""The command line: `dhpf run | submit | jobs | match | ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from dhpf.errors import InputError
from dhpf.pipelines.commands import (
    doctor,
    export,
    gallery,
    jobs,
    match,
    models,
    pairs,
    run,
    submit,
    track,
    verify,
    workflows,
)
from dhpf.pipelines.commands.answers import (
    BAD_INPUT,
    FAILED,
    INTERRUPTED,
    Answer,
    Unforeseen,
    complain,
    ended_as_by_ctrl_c,
    show_error,
    shown_log,
)

WORKFLOWS, CLUSTER, IMAGES, MODELS = "Workflows", "Cluster", "Images", "Models"
"""Groups of commands in the help."""

application = typer.Typer(
    name="dhpf",
    help="Which point of one image is which point of another.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
application.command(rich_help_panel=WORKFLOWS)(run.run)
application.command(rich_help_panel=WORKFLOWS)(verify.verify)
application.command(rich_help_panel=WORKFLOWS)(gallery.gallery)
application.command(rich_help_panel=WORKFLOWS)(export.export)
application.command("list", rich_help_panel=WORKFLOWS)(workflows.list_workflows)
application.command(rich_help_panel=WORKFLOWS)(workflows.describe)
application.command(rich_help_panel=WORKFLOWS)(workflows.schema)
application.command(rich_help_panel=CLUSTER)(submit.submit)
application.command(rich_help_panel=CLUSTER)(jobs.jobs)
application.command(rich_help_panel=CLUSTER)(jobs.logs)
application.command(rich_help_panel=CLUSTER)(jobs.stop)
application.command(rich_help_panel=CLUSTER)(doctor.doctor)
application.command(rich_help_panel=IMAGES)(match.match)
application.command(rich_help_panel=IMAGES)(pairs.pairs)
application.add_typer(
    track.commands, name="track", rich_help_panel=WORKFLOWS, help="Fill in what MLflow missed of runs."
)
application.add_typer(
    models.commands,
    name="models",
    rich_help_panel=MODELS,
    help="List, compare, promote and roll back registered models.",
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from dhpf.pipelines.outputs.code_version import code_version

        Answer().text(f"dhpf {code_version()}")
        raise typer.Exit


@application.callback()
def _before_any_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: of the command line; None for those of this process.

    Returns:
        an exit status, see dhpf.pipelines.commands.answers.
    """
    sys.excepthook = show_error
    try:
        with shown_log(), ended_as_by_ctrl_c():
            status = get_command(application).main(arguments, prog_name="dhpf", standalone_mode=False)
    except InputError as error:
        complain(str(error))
        return BAD_INPUT
    except typer.TyperException as error:  # an unknown command or option, a value that an option does not take
        complain(f"{error.format_message().rstrip('.')}; see `dhpf --help`")
        return BAD_INPUT
    except Unforeseen as error:
        complain(str(error))
        return FAILED
    if status == INTERRUPTED:
        complain("interrupted; the same command goes on from here")
    return int(status or 0)


if __name__ == "__main__":
    sys.exit(main())
