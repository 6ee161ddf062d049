"""The page of what was tried, docs/chaos.md, made from the figures in docs/chaos.json."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def stored(part: str) -> dict[str, Any]:
    """A part of docs/chaos.json; empty where there is none."""
    return dict(json.loads(JSON.read_text()).get(part, {})) if JSON.exists() else {}


def commit() -> str:
    """The commit of the code that runs, with a plus where files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "dhpf", "pipelines", "infra", "benchmarks")
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


def page(parts: Mapping[str, Any]) -> str:
    """The whole page, with the parts that there are."""
    writers = {
        "storm": _storm,
        "forked": _storm,
        "store": _cases,
        "places": _cases,
        "training": _training,
        "fuzz": _fuzz,
    }
    titles = {
        "storm": "A storm of kills on a cluster",
        "forked": "A storm of kills without Ray",
        "store": "A store that fails and spoils",
        "places": "Full, read-only, and a year ahead",
        "training": "Trainings that are killed",
        "fuzz": "Damaged and hostile files",
    }
    sections = []
    for name, write in writers.items():
        if name in parts:
            part = parts[name]
            about = [ABOUT[name], ""] if name in ABOUT else []
            seed = f", seed {part['seed']}" if "seed" in part else ""
            made = f"Commit `{part['commit']}`{seed}, {part['cpus']} cores of {part['machine']}."
            sections.append("\n".join([f"## {titles[name]}", "", *about, *write(part), "", made, ""]))
    missing = [f"- {title}" for name, title in titles.items() if name not in parts]
    if missing:
        sections.append("\n".join(["## Written, and not run to its end yet", "", *missing, ""]))
    return HEAD + "\n".join(sections)


def bound(bad: int, of: int) -> str:
    """Below what the true share is, at 95 %, where none of so many was bad; nothing where some were."""
    return "" if bad or not of else f"< {3 / of:.2g}"


def _storm(part: Mapping[str, Any]) -> Iterator[str]:
    rounds = part["rounds"]
    strikes = _sum(each["strikes"] for each in rounds)
    kinds = ", ".join(f"{strikes[kind]} {words}" for kind, words in STRUCK.items() if strikes[kind])
    yield (
        f"{counted(len(rounds), 'round')} and {counted(sum(each['submits'] for each in rounds), 'driver')}: "
        f"{strikes.total() - strikes['stop']} SIGKILLs and {strikes['stop']} SIGSTOPs in "
        f"{round(sum(each['seconds'] for each in rounds))} s ({kinds}). Each round was begun again until it was done."
    )
    yield from ("", "| | strikes | rows expected | lost | doubled | corrupt | true share |", f"|{' --- |' * 7}")
    ours = _sum(each["rows"] for each in rounds) + Counter(strikes=strikes.total())
    controls = {name: _sum(each["controls"][name] for each in rounds) for name in rounds[0]["controls"]}
    for name, rows in {"dhpf": ours, **controls}.items():
        bad = sum(rows[kind] for kind in ROWS)
        cells = [name, rows["strikes"], rows["expected"], *(rows[kind] for kind in ROWS), bound(bad, rows["expected"])]
        yield f"| {' | '.join(map(str, cells))} |"
    again = [each["rerun_wrote_nothing"] for each in rounds if "rerun_wrote_nothing" in each]
    yield from ("", "Rows were compared in all columns but times.")
    if again:
        yield f"Asked for again after the storm, {sum(again)} of {counted(len(again), 'run')} wrote nothing."
    yield f"Rounds: {_made(rounds)}."


def _sum(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total = Counter[str]()
    for each in counts:
        total.update(each)
    return total


ABOUT = {
    "storm": "Shard, evaluate and match on a head and two workers in network namespaces and an S3 server. The same "
    "storm met two writers that are not exact: one skips a block whose file exists, one writes unique names that "
    "readers take by a pattern. They lose and double, so the storm would show it of others, too.",
    "forked": "The shard stage with forked processes in place of Ray's actors, killed at any moment of a block; what a "
    "killed driver had begun writes on beside the next driver's processes, and so do stopped processes beside those "
    "that took their blocks. The same two writers met at least as many strikes.",
}

STRUCK = {
    "worker": "at workers and actors",
    "driver": "at drivers",
    "raylet": "at raylets",
    "store": "at the S3 server",
    "stop": "stops of workers",
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
    trainings = part["trainings"]
    total = _sum({name: each[name] for name in ("kills", "within_a_save", "runs")} for each in trainings)
    different = sum(not each["is_equal"] for each in trainings)
    kills = f"{total['kills']}, {total['within_a_save']} of them within a save"
    yield (
        "A training of the quickstart with a save after each step, on CPUs. Its driver and all processes that it had "
        "started were killed at random moments, and it was begun again each time. Within a save: some files of a "
        "checkpoint were there, and not all."
    )
    yield from ("", "| trainings | kills | runs | final weights not bit for bit those of an undisturbed one |")
    yield f"|{' --- |' * 4}"
    yield f"| {len(trainings)} | {kills} | {total['runs']} | {different} of {len(trainings)} |"
    yield from ("", f"Trainings: {_made(trainings)}.", *part.get("notes", ()))


def _made(pieces: Sequence[Mapping[str, Any]]) -> str:
    """Of which commits and with which seeds the pieces of a part were made."""
    made = sorted({(each["commit"], each["seed"]) for each in pieces})
    return ", ".join(f"commit `{commit}` with seed {seed}" for commit, seed in made)


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
    for note in part.get("notes", ()):
        yield from ("", note)
