"""`dhpf verify`: checks all that a run has stored against its digests, and has the next run repair what is damaged."""

from __future__ import annotations

from typing import Annotated

import typer

from dhpf.pipelines.commands.answers import BAD_INPUT, DONE, Answer, complain
from dhpf.pipelines.commands.options import AsJson, Quiet, place_of

MEGABYTE = 1_000_000

Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="Folder or s3:// URI of a run, such as dhpf-work/NAME, or of one of its stages.",
        show_default=False,
    ),
]
Repair = Annotated[
    bool,
    typer.Option(
        "--repair",
        help="Mark what is damaged, so that the next run makes it, and nothing else, again; "
        "while no run is under way in the folder.",
    ),
]


def verify(run: Run, repair: Repair = False, as_json: AsJson = False, quiet: Quiet = False) -> int:
    """Check all files that a run has stored against their digests."""
    from dhpf.pipelines.progress import CountedWork, doing
    from dhpf.planning.plan_summary import counted

    answer, folder = Answer(quiet, as_json), place_of("RUN", run)
    with doing("listing what is stored"):
        from dhpf.pipelines.verification import facts_of, parts_of

        parts = parts_of(folder)
    total = sum(check.size for part in parts for check in part.checks)
    read = 0
    with CountedWork(f"verifying {folder.name}", "MB", -(-total // MEGABYTE)) as work:
        for part in parts:

            def on_read(size: int, name: str = part.name) -> None:
                nonlocal read
                before, read = read, read + size
                work.update(-(-read // MEGABYTE) - -(-before // MEGABYTE), name)

            part.verify(on_read)
    found = [facts_of(part) for part in parts]
    num_damaged = sum(len(part.damage) for part in parts)
    repaired = {part.name: part.repair() for part in parts if repair and part.state}
    answer.facts(
        {"folder": str(folder), "parts": found, "damaged": num_damaged, "done_again": repaired if repair else {}}
    )
    columns = ["files", "bytes", "damaged", "missing", "unreferenced"]
    rows = [[str(facts["name"]), str(facts["state"]), *(f"{facts[column]:,}" for column in columns)] for facts in found]
    sums = [f"{sum(facts[column] for facts in found):,}" for column in columns]
    answer.table(["part", "state", *columns], [*rows, ["all", "", *sums]])
    if not num_damaged:
        return DONE
    for part in parts:
        for damage in part.damage:
            task = f", task {damage.task}" if damage.task else ""
            answer.text(f"{part.name}{task}: {damage.key}: {damage.what}; {damage.remedy}")
    if repair:
        num_tasks = sum(map(len, repaired.values()))
        answer.text(f"{counted(num_tasks, 'task')} marked; the command of the run does them again, and nothing else")
    complain(f"{counted(num_damaged, 'file')} of {folder} damaged or missing")
    return BAD_INPUT
