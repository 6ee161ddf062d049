"""Command line of the fuzz harness: `python -m benchmarks.fuzz [--seconds S] [--only READER]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.chaos.page import stored, write_part
from benchmarks.fuzz.harness import fuzz
from benchmarks.fuzz.readers import names


def added(before: Mapping[str, Any], figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of readers with those that were written before: sums, and of memory and time the highest."""
    return {name: _with(before[name], new) if name in before else new for name, new in figures.items()}


def _with(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "inputs": one["inputs"] + other["inputs"],
        "findings": dict(Counter(one["findings"]) + Counter(other["findings"])),
        **{name: max(one[name], other[name]) for name in ("highest_memory_mb", "slowest_ms")},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="for each reader (default: 600)")
    parser.add_argument("--only", nargs="+", default=list(names()), help="readers (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="file for the inputs of findings, a JSON object in each line")
    parser.add_argument("--add", action="store_true", help="add to the figures written before")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/chaos.json and docs/chaos.md")
    options = parser.parse_args()
    figures = {}
    for name in options.only:
        figures[name] = fuzz(name, options.seed, options.seconds, options.keep)
        print(f"{name}: {json.dumps(figures[name])}", flush=True)
    if options.write:
        before = stored("fuzz").get("readers", {}) if options.add else {}
        write_part("fuzz", {"seed": options.seed, "readers": before | added(before, figures)})
    return 1 if any(each["findings"] for each in figures.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
