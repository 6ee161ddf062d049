"""`dhpf export` writes a run's correspondences in the format of another tool."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from dhpf.pipelines.commands.answers import DONE, LEFT_OUT, Answer, complain
from dhpf.pipelines.commands.options import AsJson, Quiet

Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="Folder or s3:// URI of a run, such as dhpf-work/NAME, or of one of its match outputs.",
        show_default=False,
    ),
]
Format = Annotated[
    str,
    typer.Option("--format", metavar="NAME", help="colmap, csv, hdf5 (as hloc reads it) or npz.", show_default=False),
]
Output = Annotated[
    Path,
    typer.Option("--output", "-o", help="What is written: for hdf5 and npz a folder, else a file.", show_default=False),
]


def export(run: Run, kind: Format, output: Output, as_json: AsJson = False, quiet: Quiet = False) -> int:
    """Write the correspondences of a run for another tool."""
    from dhpf.pipelines.outputs import exports
    from dhpf.planning.plan_summary import counted

    answer = Answer(quiet, as_json)
    tally = exports.export(run, kind, output)
    answer.text(f"{output}: {counted(tally.num_written, 'pair')}, matches: {tally.num_matches:,}")
    answer.facts({"output": str(output), **dataclasses.asdict(tally)})
    if tally.left_out:
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in tally.left_out.items())
        complain(f"{counted(tally.num_pairs - tally.num_written, 'pair')} left out: {reasons}")
        return LEFT_OUT
    return DONE
