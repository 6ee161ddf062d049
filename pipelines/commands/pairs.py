"""`dhpf pairs`: the pairs of a folder of images as a table, or their number."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from dhpf.errors import InputError
from dhpf.pipelines.commands.answers import DONE, REJECTS, Answer, complain
from dhpf.pipelines.commands.options import AsJson, Quiet

LIMITS = "Blocks"

Collection = Annotated[str, typer.Argument(help="Folder of images, or s3://BUCKET/PREFIX.", show_default=False)]
Select = Annotated[str, typer.Option(help="Which pairs: all, within-folders, reference, neighbours or list.")]
Reference = Annotated[
    str | None,
    typer.Option(metavar="ID", help="With --select reference: this image with all others; its path below the folder."),
]
Reach = Annotated[int | None, typer.Option(metavar="K", help="With --select neighbours: each with the next K images.")]
PairList = Annotated[
    Path | None,
    typer.Option("--list", metavar="FILE", help="With --select list: CSV or Parquet, columns source and target."),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="The table, a Parquet file.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count pairs and blocks, and write nothing.")]
MaxImages = Annotated[int, typer.Option(help="Images that a block may hold.", rich_help_panel=LIMITS)]
MaxPairs = Annotated[int, typer.Option(help="Pairs that a block may hold.", rich_help_panel=LIMITS)]


def pairs(
    collection: Collection,
    select: Select = "all",
    reference: Reference = None,
    reach: Reach = None,
    list_: PairList = None,
    output: Output = None,
    dry_run: DryRun = False,
    max_images: MaxImages = 100,
    max_pairs: MaxPairs = 500,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Write the pairs of a folder of images as a table, or count them."""
    from dhpf.pipelines.inputs.pair_table import planned_table, rejects_path, require_absent, write_pair_table
    from dhpf.pipelines.inputs.planned_pairs import PairsRequest

    written = None if dry_run else output
    if not dry_run and output is None:
        raise InputError("--output: is missing; name a Parquet file, or give --dry-run to write nothing")
    if written is not None:
        require_absent(written)
    pair_list = None if list_ is None else str(list_)
    request = PairsRequest(collection, select, reference, reach, pair_list, max_images, max_pairs)
    answer = Answer(quiet, as_json)
    with planned_table(request, None if written is None else written.parent) as plan:
        answer.text(str(plan))
        if written is not None:
            write_pair_table(plan, written)
            answer.text(f"pairs: {written}")
        answer.facts(
            {
                "num_images": len(plan.images),
                "plan": dataclasses.asdict(plan.summary),
                "num_rejected": plan.num_rejected,
                "first_rejection": plan.first_rejection,
                "table": None if written is None else str(written),
            }
        )
    if plan.num_rejected:
        where = "" if written is None else f"; all in {rejects_path(written)}"
        complain(f"{plan.num_rejected} rows rejected; the first: {plan.first_rejection}{where}")
        return REJECTS
    return DONE
