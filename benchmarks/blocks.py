"""`make bench-blocks`: what a block costs beside matching it: handing it out, committing it, finishing its stage.

Each is measured in a folder and in a bucket of an S3 server on this machine. Blocks are empty here: an actor commits a
table of a few kilobytes without having matched anything. Writes docs/blocks.json.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import tempfile
from pathlib import Path

from benchmarks.figures import machine
from dhpf.pipelines.cluster import set_ray_environment
from dhpf.pipelines.commands.answers import shown_log
from infra.s3_server import served_bucket


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/blocks.json"), help="file to write")
    parser.add_argument("--tasks", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="sizes of a stage")
    parser.add_argument("--blocks", type=int, default=3_000, help="blocks that actors commit")
    options = parser.parse_args()
    keys = {"accessKey": "owner", "secretKey": secrets.token_hex(16)}
    os.environ |= {"AWS_ACCESS_KEY_ID": keys["accessKey"], "AWS_SECRET_ACCESS_KEY": keys["secretKey"]}
    with tempfile.TemporaryDirectory(prefix="blocks-") as name:
        folder = Path(name)
        set_ray_environment(None)
        from benchmarks.block_measures import measure_pool, measure_requests, measure_store

        (folder / "s3").mkdir()
        with served_bucket("blocks", keys, folder / "s3") as bucket:
            places = {"folder": str(folder / "outputs"), "bucket": bucket.uri("outputs")}
            figures = {"machine": machine() | {"cpus": os.cpu_count()}, "requests": measure_requests(places["bucket"])}
            print(f"requests of a block: {figures['requests']}", flush=True)
            for kind, place in places.items():
                pool = measure_pool(f"{place}", folder / f"ray-{kind}", options.blocks)
                print(f"{kind}, per 1,000 blocks through two actors: {pool}", flush=True)
                figures[f"pool {kind}"] = pool
                for num_tasks in options.tasks:
                    store = measure_store(place, num_tasks)
                    print(f"{kind}, {num_tasks:,} tasks: {store}", flush=True)
                    figures[f"store {kind} {num_tasks}"] = store
    options.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    with shown_log():
        main()
