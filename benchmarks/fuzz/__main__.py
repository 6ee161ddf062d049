"""Command line of the fuzz harness: `python -m benchmarks.fuzz [--seconds S] [--only READER]`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.chaos.page import write_part
from benchmarks.fuzz.harness import fuzz
from benchmarks.fuzz.readers import names


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="for each reader (default: 600)")
    parser.add_argument("--only", nargs="+", default=list(names()), help="readers (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="file for the inputs of findings, a JSON object in each line")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/chaos.json and docs/chaos.md")
    options = parser.parse_args()
    figures = {}
    for name in options.only:
        figures[name] = fuzz(name, options.seed, options.seconds, options.keep)
        print(f"{name}: {json.dumps(figures[name])}", flush=True)
    if options.write:
        write_part("fuzz", {"seed": options.seed, "readers": figures})
    return 1 if any(each["findings"] for each in figures.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
