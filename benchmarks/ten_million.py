"""`make estimate-10m`: what 10 million images with 10 neighbours each take on 64 GPUs, from pieces that were measured.

Nothing of that size was run. Planning is measured here at full size, and so are decoding an image and the size of a
result row. What a block costs beside its matching is copied from docs/blocks.json, which `make bench-blocks` writes;
the GPU's times come from bench.json, and what a list without any order describes from docs/scaling.json. The rest is
assumed, and named as such below. Writes docs/ten_million.json and the table of docs/scale.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- table: python -m benchmarks.ten_million -->\n", "<!-- end of the table -->\n"

NUM_IMAGES, REACH, NUM_GPUS = 10_000_000, 10, 64

# Assumed.
BYTES_PER_IMAGE_FILE = 100_000
THREADS_PER_GPU = 4
"""Images that an actor decodes at once (dhpf.pipelines.matching.describing.DECODED_AHEAD), each on a CPU of its own."""

# List prices of one provider, AWS, in US dollars. Others, and contracts, differ.
DOLLARS_PER_PUT = 0.005 / 1000
"""S3 Standard, us-east-1: PUT, COPY, POST, LIST. https://aws.amazon.com/s3/pricing/, as of 2026."""
DOLLARS_PER_GET = 0.0004 / 1000
"""S3 Standard, us-east-1: GET and all others; DELETE is free. Same page."""
DOLLARS_PER_GPU_HOUR = 43.26 / 8
"""p5e.48xlarge, 8 H200, us-east-2, as a capacity block. https://aws.amazon.com/ec2/capacityblocks/pricing/, as of the
end of 2024."""
PUTS_PER_SECOND, GETS_PER_SECOND = 3_500, 5_500
"""What S3 promises at least for each prefix that it has split off.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html"""


@dataclass(frozen=True)
class Pieces:
    """What was measured.

    Attributes:
        gpu_seconds_per_image, gpu_seconds_per_pair: to describe an image, and to match a pair of described images.
        cpu_seconds_per_image: to decode an image and to bring it to the network's size, on one thread.
        bytes_per_pair, bytes_per_block: of a result table.
        puts_per_block, gets_per_block: requests of a block to its store; its images come on top.
        commit_seconds: that a worker spends on them.
        blocks_per_second: that a driver hands out and takes back in a second of its CPU time, if they are empty.
        finish_seconds_per_block, finish_mb_per_block: after the last block, until the manifest is written.
    """

    gpu_seconds_per_image: float
    gpu_seconds_per_pair: float
    cpu_seconds_per_image: float
    bytes_per_pair: float
    bytes_per_block: float
    puts_per_block: float
    gets_per_block: float
    commit_seconds: float
    blocks_per_second: float
    finish_seconds_per_block: float
    finish_mb_per_block: float


@dataclass(frozen=True)
class Plan:
    """Counts of a plan, and what planning took; None where that was not measured."""

    num_blocks: int
    num_pairs: int
    num_described: int
    plan_seconds: float | None = None
    plan_mb: float | None = None


@dataclass(frozen=True)
class Estimate:
    """What a plan takes on all GPUs, if nothing else holds them up; see `limits` for what does."""

    plan: Plan
    pieces: Pieces

    @property
    def gpu_hours(self) -> float:
        pieces = self.pieces
        seconds = self.plan.num_described * pieces.gpu_seconds_per_image
        seconds += self.plan.num_pairs * pieces.gpu_seconds_per_pair
        return (seconds + self.plan.num_blocks * pieces.commit_seconds) / 3600

    @property
    def hours(self) -> float:
        return self.gpu_hours / NUM_GPUS

    @property
    def puts(self) -> float:
        return self.plan.num_blocks * self.pieces.puts_per_block

    @property
    def gets(self) -> float:
        return self.plan.num_blocks * self.pieces.gets_per_block + self.plan.num_described

    @property
    def bytes_written(self) -> float:
        pieces = self.pieces
        return self.plan.num_blocks * pieces.bytes_per_block + self.plan.num_pairs * pieces.bytes_per_pair

    @property
    def limits(self) -> dict[str, tuple[float, float]]:
        """What is needed in a second, so that no GPU waits, and what is there, by its name."""
        seconds = 3600 * self.hours
        decoded = NUM_GPUS * THREADS_PER_GPU / self.pieces.cpu_seconds_per_image
        return {
            "blocks that the driver hands out": (self.plan.num_blocks / seconds, self.pieces.blocks_per_second),
            "images that are decoded": (self.plan.num_described / seconds, decoded),
            "GET requests to one prefix": (self.gets / seconds, GETS_PER_SECOND),
            "PUT requests to one prefix": (self.puts / seconds, PUTS_PER_SECOND),
        }

    @property
    def breaks_first(self) -> str:
        """The name of the limit that is reached first, also if it is not reached."""
        return max(self.limits, key=lambda name: self.limits[name][0] / self.limits[name][1])

    @property
    def slowed_hours(self) -> float:
        """How long it takes at what breaks first."""
        needed, there = self.limits[self.breaks_first]
        return self.hours * max(1.0, needed / there)


def pieces_of(measured: Mapping[str, Any], bench: Mapping[str, Any]) -> Pieces:
    """Collects the pieces from docs/ten_million.json and bench.json.

    The time of an image is what all pairs of 64 images take beyond the GPU's own time for pairs: it holds what the CPU
    adds to each batch of pairs, too, and so is rather too long.
    """
    pair = sum(bench["gpu_microseconds_per_pair"].values()) / 1e6
    num_pairs = 64 * 63 // 2
    image = (num_pairs / bench["gpu_all_pairs_64_triton"]["ours"] - num_pairs * pair) / 64
    blocks = measured["blocks"]
    requests, pool = blocks["requests"], blocks["pool bucket"]
    num_tasks = max(int(name.split()[-1]) for name in blocks if name.startswith("store bucket"))
    store = blocks[f"store bucket {num_tasks}"]
    puts = requests.get("put", 0) + requests.get("list", 0)
    return Pieces(
        image,
        pair,
        measured["cpu_seconds_per_image"],
        measured["bytes_per_pair"],
        measured["bytes_per_block"],
        puts,
        requests["all"] - puts - requests.get("delete", 0),
        store["commit_ms"] / 1000,
        1000 / pool["driver_cpu_s"],
        store["finish_s"] / num_tasks,
        store["finish_mb"] / num_tasks,
    )


def plans_of(measured: Mapping[str, Any], scaling: Mapping[str, Any]) -> dict[str, Plan]:
    """The plan of each image with those that follow it, and that of as many pairs in a list without any order."""
    plans = {name: Plan(**counts) for name, counts in measured["plans"].items()}
    film = next(iter(plans.values()))
    lists = [collection for collection in scaling["collections"] if collection["pairs"] == "random list"]
    largest = max(lists, key=lambda collection: int(collection["num_images"]))
    in_list = Plan(film.num_blocks, film.num_pairs, round(film.num_pairs * largest["described_per_pair"]))
    return plans | {"random list": in_list}


def table(pieces: Pieces, plans: Mapping[str, Plan]) -> str:
    """The Markdown table of docs/scale.md."""
    estimates = [Estimate(plan, pieces) for plan in plans.values()]
    rows = {
        "pairs": [f"{e.plan.num_pairs:,}" for e in estimates],
        "blocks": [f"{e.plan.num_blocks:,}" for e in estimates],
        "images described": [f"{e.plan.num_described:,}" for e in estimates],
        "read, TB": [f"{e.plan.num_described * BYTES_PER_IMAGE_FILE / 1e12:.1f}" for e in estimates],
        "written, TB": [f"{e.bytes_written / 1e12:.2f}" for e in estimates],
        "GET requests, millions": [f"{e.gets / 1e6:.1f}" for e in estimates],
        "PUT and LIST requests, millions": [f"{e.puts / 1e6:.2f}" for e in estimates],
        "price of the requests, $": [f"{e.gets * DOLLARS_PER_GET + e.puts * DOLLARS_PER_PUT:.0f}" for e in estimates],
        "GPU hours": [f"{e.gpu_hours:.0f}" for e in estimates],
        "price of the GPU hours, $": [f"{e.gpu_hours * DOLLARS_PER_GPU_HOUR:,.0f}" for e in estimates],
        f"hours on {NUM_GPUS} GPUs, if nothing holds them up": [f"{e.hours:.2f}" for e in estimates],
    }
    for name in estimates[0].limits:
        of_plans = (e.limits[name] for e in estimates)
        rows[f"a second: {name}, needed / there"] = [f"{needed:,.0f} / {there:,.0f}" for needed, there in of_plans]
    rows |= {
        "reached first": [e.breaks_first for e in estimates],
        "hours, slowed down by it": [f"{e.slowed_hours:.2f}" for e in estimates],
        "planning in the driver": [_planning(e.plan) for e in estimates],
        "finishing in the driver": [_finishing(e) for e in estimates],
    }
    lines = [f"| | {' | '.join(plans)} |", "| --- |" + " --- |" * len(plans)]
    return "\n".join(lines + [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]) + "\n"


def _planning(plan: Plan) -> str:
    if plan.plan_seconds is None or plan.plan_mb is None:
        return "not measured"
    return f"{plan.plan_seconds:.0f} s, {plan.plan_mb / 1000:.1f} GB"


def _finishing(estimate: Estimate) -> str:
    pieces, num_blocks = estimate.pieces, estimate.plan.num_blocks
    seconds, megabytes = num_blocks * pieces.finish_seconds_per_block, num_blocks * pieces.finish_mb_per_block
    return f"{seconds:.0f} s, {megabytes / 1000:.1f} GB"


def table_from_files() -> str:
    """The table from the figures that are committed."""
    files = (DOCS / "ten_million.json", DOCS.parent / "bench.json", DOCS / "scaling.json")
    measured, bench, scaling = (json.loads(path.read_text()) for path in files)
    return table(pieces_of(measured, bench), plans_of(measured, scaling))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only-table", action="store_true", help="measure nothing; the committed figures stay")
    if not parser.parse_args().only_table:
        from benchmarks.ten_million_measures import measure

        blocks = json.loads((DOCS / "blocks.json").read_text())
        copied = {name: figure for name, figure in blocks.items() if "folder" not in name}
        measured = measure(NUM_IMAGES, REACH) | {"blocks": copied}
        (DOCS / "ten_million.json").write_text(json.dumps(measured, indent=2) + "\n")
    page = (DOCS / "scale.md").read_text()
    before, rest = page.split(BEGIN)
    (DOCS / "scale.md").write_text(before + BEGIN + table_from_files() + END + rest.split(END)[1])
    print(table_from_files())


if __name__ == "__main__":
    main()
