"""`make bench-scaling`: cost of a pair as a collection grows, gain from a second actor, features in float16.

The collections are made here: crops of photos that packages ship, in sub-folders of a hundred. Each collection is
planned whole; then one block from the middle of the plan is matched, because the cost of a block does not depend on
other blocks. Writes docs/scaling.json, docs/scaling-collection.png and docs/scaling-actors.png.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.figures import machine
from benchmarks.scaling_pictures import save_charts
from dhpf.pipelines.cluster import set_ray_environment
from dhpf.pipelines.commands.answers import shown_log

SIZES = (100, 1_000, 10_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder to write to (default: docs)")
    parser.add_argument("--quick", action="store_true", help="small collections and one round")
    options = parser.parse_args()
    sizes, rounds = ((100, 300), 1) if options.quick else (SIZES, 3)
    with tempfile.TemporaryDirectory(prefix="scaling-") as name:
        folder = Path(name)
        set_ray_environment(None)
        from benchmarks.scaling_measures import (
            make_collections,
            measure_actors,
            measure_collections,
            measure_half_precision,
        )

        folders = make_collections(folder, sizes)
        collections = list(measure_collections(folders, folder))
        half = measure_half_precision(folders[100])
        print(f"features in float16: {half}", flush=True)
        rates = measure_actors(folders[100], folder / "actors", rounds)
    ratio = statistics.median(two / one for one, two in zip(rates[1], rates[2], strict=True))
    print(f"two actors against one: {ratio:.2f}x")
    options.out.mkdir(parents=True, exist_ok=True)
    save_charts([asdict(cost) for cost in collections], rates, options.out)
    content: dict[str, Any] = {
        "machine": machine() | {"cpus": os.cpu_count()},
        "collections": [asdict(cost) for cost in collections],
    }
    content |= {"pairs_per_second": rates, "two_actors_against_one": ratio, "float16": half}
    (options.out / "scaling.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    with shown_log():
        main()
