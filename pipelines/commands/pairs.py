"""`dhpf pairs` writes the pairs of a folder of images as a table, or counts them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from dhpf.errors import InputError
from dhpf.pipelines.commands.answers import DONE, LEFT_OUT, Answer, complain
from dhpf.pipelines.commands.options import AsJson, Quiet
from dhpf.planning.select import PAIR_SELECTS, SELECT_OPTIONS, SelectOption, pair_select

LIMITS = "Blocks"

Collection = Annotated[str, typer.Argument(help="Folder of images, or s3://BUCKET/PREFIX.", show_default=False)]
Select = Annotated[str, typer.Option(metavar="NAME", help=f"Which pairs: {', '.join(PAIR_SELECTS)}.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="The table, a Parquet file.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count pairs and blocks, and write nothing.")]
MaxImages = Annotated[
    int | None,
    typer.Option(help="Images that a block may hold. Default: all that its pairs have.", rich_help_panel=LIMITS),
]
MaxPairs = Annotated[
    int | None,
    typer.Option(help="Pairs that a block may hold. Default: what the match stage takes.", rich_help_panel=LIMITS),
]


def _with_select_options(command: Callable[..., int]) -> Callable[..., int]:
    """Gives a command an option for each of SELECT_OPTIONS; it gets them as keyword arguments, None if not given."""
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind != parameter.VAR_KEYWORD]
    place = 1 + [parameter.name for parameter in own].index("select")
    own[place:place] = [_select_parameter(option) for option in SELECT_OPTIONS.values()]
    command.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]
    return command


def _select_parameter(option: SelectOption) -> inspect.Parameter:
    help_text = f"With --select {' or '.join(option.owners)}: {option.help}."
    wanted: Any = option.type
    annotation = Annotated[wanted | None, typer.Option(option.flag, metavar=option.metavar, help=help_text)]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(option.name, kind, default=None, annotation=annotation)


@_with_select_options
def pairs(
    collection: Collection,
    select: Select = "all",
    output: Output = None,
    dry_run: DryRun = False,
    max_images: MaxImages = None,
    max_pairs: MaxPairs = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    **select_options: str | int | None,
) -> int:
    """Write the pairs of a folder of images as a table, or count them."""
    from dhpf.pipelines.inputs.pair_table import planned_table, rejects_path, require_new_table, write_pair_table
    from dhpf.planning.plan_summary import counted

    chosen = pair_select(select, select_options)
    written = None if dry_run else output
    if not dry_run and output is None:
        raise InputError("--output: is missing; name a Parquet file, or give --dry-run to write nothing")
    if written is not None:
        require_new_table(written)
    answer = Answer(quiet, as_json)
    scratch = None if written is None else written.parent
    with planned_table(collection, chosen, max_images=max_images, max_pairs=max_pairs, scratch=scratch) as plan:
        answer.text(str(plan))
        if written is not None:
            write_pair_table(plan, written)
            answer.text(f"pairs: {written}")
        answer.facts(
            {
                "num_images": len(plan.images),
                "plan": dataclasses.asdict(plan.summary),
                "limits": dataclasses.asdict(plan.limits),
                "remarks": {remark.text: remark.count for remark in plan.remarks},
                "num_rejected": plan.num_rejected,
                "first_rejection": plan.first_rejection,
                "table": None if written is None else str(written),
            }
        )
    if plan.num_rejected:
        where = "" if written is None else f"; all in {rejects_path(written)}"
        complain(f"{counted(plan.num_rejected, 'row')} rejected; the first: {plan.first_rejection}{where}")
        return LEFT_OUT
    return DONE
