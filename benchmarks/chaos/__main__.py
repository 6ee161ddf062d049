"""Command line of the chaos harness: `make chaos`, as root; `make chaos SHORT=1` takes minutes."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.chaos import kill_storm, private_runs
from benchmarks.chaos.forked_storm import forked_rounds
from benchmarks.chaos.page import commit, stored, write_part
from benchmarks.chaos.training_kills import training_kills
from benchmarks.chaos.workload import LONG, SHORT, Size

PARTS = ("storm", "forked", "store", "places", "training")
SHORT_PARTS = ("storm", "store", "places")
"""Kills of a training are among the long tests."""


def _before(part: str, name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What was written before and is added to."""
    return list(stored(part).get(name, [])) if options.add else []


def _kept(
    part: str, name: str, found: Iterable[Mapping[str, Any]], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """All pieces of a part, what was written before included; each new one is written as soon as it is there."""
    pieces = _before(part, name, options)
    for figures in found:
        pieces.append({"commit": commit(), **figures})
        if options.write:
            write_part(part, {name: pieces})
    return pieces


def _storm(options: argparse.Namespace, size: Size) -> None:
    """Lets the storm blow."""
    num_before = len(_before("storm", "rounds", options))
    with kill_storm.cluster() as cluster:
        found = kill_storm.measure(
            cluster,
            size,
            seed=options.seed,
            kills=options.kills or (10 if options.short else 200),
            stops=options.stops or (1 if options.short else 10),
            pause=options.pause,
            seconds=options.seconds,
        )
        rounds = _kept("storm", "rounds", found, options)
    kill_storm.require_shown(rounds[num_before:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="ten kills, and the private runs in fewer commands")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts (default: all; if short, all but the training)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, help="SIGKILLs (default: 200, or 10 if short; of a training 20)")
    parser.add_argument("--stops", type=int, help="SIGSTOPs (default: 10, or 1 if short)")
    parser.add_argument("--pause", type=float, default=4, help="mean seconds between two strikes (default: 4)")
    parser.add_argument("--seconds", type=float, default=4 * 3600, help="after which the storm ends (default: 4 hours)")
    parser.add_argument("--add", action="store_true", help="add rounds and trainings to those written before")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/chaos.json and docs/chaos.md")
    options = parser.parse_args()
    size, parts = (SHORT, SHORT_PARTS) if options.short else (LONG, PARTS)
    parts = options.only or parts
    if "storm" in parts:
        _storm(options, size)
    if "forked" in parts:
        kill_storm.require_shown(_kept("forked", "rounds", forked_rounds(options.seed, options.kills or 200), options))
    if "training" in parts:
        trainings = _kept("training", "trainings", training_kills(options.seed, options.kills or 20), options)
        assert all(each["is_equal"] for each in trainings), trainings
    if set(parts) & {"store", "places"}:
        with tempfile.TemporaryDirectory(prefix="chaos-") as name:
            runs = private_runs.prepared(Path(name), SHORT)
            expected = private_runs.undisturbed(runs)
            if "store" in parts:
                cases = private_runs.store_cases(runs, expected, is_short=options.short)
                if options.write:
                    write_part("store", {"seed": 0, "cases": cases})
            if "places" in parts:
                cases = private_runs.place_cases(runs, expected)
                if options.write:
                    write_part("places", {"seed": 0, "cases": cases})


if __name__ == "__main__":
    main()
