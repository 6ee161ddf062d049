"""The page of what was tried, docs/chaos.md, made from the figures in docs/chaos.json."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.figures import machine
from dhpf.planning.plan_summary import counted

ROOT = Path(__file__).parents[2]
JSON, PAGE = ROOT / "docs" / "chaos.json", ROOT / "docs" / "chaos.md"

HEAD = """# Under faults

What was killed, stopped, filled up, cut off, spoilt or fed in, and what was left of the results. `make chaos` and
`make fuzz` write this page from `docs/chaos.json`; each part says of which commit and with which seed it is. A zero
that was seen n times is no proof: "true share" is what it lies below at 95 %, 3 / n.

"""

ROWS = ("lost", "doubled", "corrupt")


def write_part(name: str, figures: Mapping[str, Any]) -> None:
    """Puts the figures of one part, with the commit and the machine, into docs/chaos.json, and writes the page anew."""
    parts = json.loads(JSON.read_text()) if JSON.exists() else {}
    parts[name] = {"commit": commit(), "machine": machine()["cpu"], "cpus": os.cpu_count(), **figures}
    JSON.write_text(json.dumps(parts, indent=2) + "\n")
    PAGE.write_text(page(parts))
    print(f"written to {JSON} and {PAGE}")


def commit() -> str:
    """The commit of the code that runs, with a plus where files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "dhpf", "pipelines", "infra", "benchmarks")
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


def page(parts: Mapping[str, Any]) -> str:
    """The whole page, with the parts that there are."""
    writers = {"storm": _storm, "store": _cases, "places": _cases, "training": _training, "fuzz": _fuzz}
    titles = {
        "storm": "A storm of kills",
        "store": "A store that fails and spoils",
        "places": "Full, read-only, and a year ahead",
        "training": "Trainings that are killed",
        "fuzz": "Damaged and hostile files",
    }
    sections = []
    for name, write in writers.items():
        if name in parts:
            part = parts[name]
            made = f"Commit `{part['commit']}`, seed {part['seed']}, {part['cpus']} cores of {part['machine']}."
            sections.append("\n".join([f"## {titles[name]}", "", *write(part), "", made, ""]))
    missing = [f"- {title}" for name, title in titles.items() if name not in parts]
    if missing:
        sections.append("\n".join(["## Written, and not run to its end yet", "", *missing, ""]))
    return HEAD + "\n".join(sections)


def bound(bad: int, of: int) -> str:
    """Below what the true share is, at 95 %, where none of so many was bad; nothing where some were."""
    return "" if bad or not of else f"< {3 / of:.2g}"


def _storm(part: Mapping[str, Any]) -> Iterator[str]:
    strikes = part["strikes"]
    kinds = ", ".join(f"{strikes[kind]} {words}" for kind, words in STRUCK.items() if strikes.get(kind))
    yield (
        f"Shard, evaluate and match on a head and two workers in network namespaces and an S3 server, in "
        f"{counted(len(part['rounds']), 'round')} and {sum(each['submits'] for each in part['rounds'])} submits: "
        f"{part['kills']} SIGKILLs and {part['stops']} SIGSTOPs in {part['seconds']} s of storm ({kinds}). The same "
        "storm met two writers that are not exact: one skips a block whose file exists, one writes unique names that "
        "readers take by a pattern."
    )
    yield from ("", "| | strikes | rows expected | lost | doubled | corrupt | true share |", f"|{' --- |' * 7}")
    ours = {"dhpf": part["rows"] | {"strikes": part["kills"] + part["stops"]}}
    for name, rows in {**ours, **part["controls"]}.items():
        bad = sum(rows[kind] for kind in ROWS)
        cells = [name, rows["strikes"], rows["expected"], *(rows[kind] for kind in ROWS), bound(bad, rows["expected"])]
        yield f"| {' | '.join(map(str, cells))} |"
    nothing = "wrote nothing" if part["rerun_wrote_nothing"] else "WROTE AGAIN"
    yield from ("", f"Rows were compared in all columns but times. A rerun after the storm {nothing}.")


STRUCK = {
    "worker": "at workers and actors",
    "driver": "at drivers",
    "raylet": "at raylets",
    "store": "at the S3 server",
    "stop": "stops of workers, for 3 to 25 s",
}


def _cases(part: Mapping[str, Any]) -> Iterator[str]:
    yield from (
        "| what | times | commands | what came of it | rows expected | lost | doubled | corrupt | true share |",
    )
    yield f"|{' --- |' * 9}"
    for case in part["cases"]:
        rows = case["rows"]
        bad = sum(rows[kind] for kind in ROWS)
        cells = [case["what"], case["times"], case["commands"], case["outcome"], rows["expected"]]
        cells += [*(rows[kind] for kind in ROWS), bound(bad, rows["expected"])]
        yield f"| {' | '.join(map(str, cells))} |"


def _training(part: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"A training of the quickstart with a save after each step, on CPUs. Its driver and all processes that it had "
        f"started were killed {counted(part['kills'], 'time')} in {counted(part['trainings'], 'training')}, "
        f"{part['within_a_save']} of them within a save (some files of a checkpoint were there, and not all), and it "
        f"was begun again each time, {counted(part['runs'], 'run')} in all. Of {counted(part['trainings'], 'training')} "
        f"the final weights of {part['different']} were not, byte for byte, those of an undisturbed one."
    )


def _fuzz(part: Mapping[str, Any]) -> Iterator[str]:
    yield "Mutations of small real files; an input that takes the reader another way is mutated further. A finding is a"
    yield "process that ends or hangs, or anything but a result, an `InputError` or a rejected row."
    yield from ("", "| reader | inputs | findings | true share | highest memory, MB | slowest input, ms |")
    yield f"|{' --- |' * 6}"
    inputs = findings = 0
    for name, each in part["readers"].items():
        number = sum(each["findings"].values())
        cells = [name, f"{each['inputs']:,}", number, bound(number, each["inputs"])]
        yield f"| {' | '.join(map(str, [*cells, each['highest_memory_mb'], each['slowest_ms']]))} |"
        inputs, findings = inputs + each["inputs"], findings + number
    yield f"| all | {inputs:,} | {findings} | {bound(findings, inputs)} | | |"
