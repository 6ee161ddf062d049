"""The measurements of benchmarks.scaling. Importing this module imports Ray."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import skimage.data
from PIL import Image

from benchmarks.memory import extra_megabytes
from dhpf.config import ModelConfig
from dhpf.model.engines.choose import choose_engine
from dhpf.pipelines.cluster import ray_cluster
from dhpf.pipelines.config import CollectionConfig, FeatureType, MatchConfig, Resources
from dhpf.pipelines.inputs.block_source import BlockJob
from dhpf.pipelines.inputs.collection import Collection, open_collection
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching.block_matching import AS_SUITS, MatchOptions, match_block
from dhpf.pipelines.matching.matched_pair import MatchedPair
from dhpf.pipelines.matching.pool import match_blocks
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.progress import CountedWork
from dhpf.pipelines.stages.match import CorrespondenceRows
from dhpf.planning.blocks import block_name
from dhpf.planning.select import All, Neighbours, PairList
from dhpf.storage import location_of

LISTED_PER_IMAGE = 20
REACH = 5
MAX_PAIRS = 250
SIDE = 160

MODEL = ModelSource(
    ModelConfig(backbone="efficientnet_lite0", selection="fixed", layers=(5, 8, 10, 11, 15), exponent=2)
)
ROWS = CorrespondenceRows(50, False, "model", "code")
ONE_AT_A_TIME = MatchOptions(batch_size=1)


@dataclass(frozen=True)
class CollectionCost:
    """What matching a collection costs.

    Attributes:
        pairs: which pairs are matched, in words.
        described_per_pair, fewest: images described per pair by the whole plan, and a lower bound for any plan with
            the same limits.
        plan_seconds: CPU time to list the folder and to plan.
        plan_mb, block_mb: highest extra memory of planning, and of matching one block.
        cpu_ms_per_pair: CPU time to match that block, images read and described included; the lower of two times.
        block_pairs, block_images: counts of that block.
    """

    num_images: int
    pairs: str
    num_pairs: int
    described_per_pair: float
    fewest: float
    plan_seconds: float
    plan_mb: float
    cpu_ms_per_pair: float
    block_mb: float
    block_pairs: int
    block_images: int


def make_collections(root: Path, sizes: tuple[int, ...]) -> dict[int, Path]:
    """Makes a folder with as many images as each size says; the folders share the files by hard links."""
    photos = [Image.fromarray(getattr(skimage.data, name)()) for name in ("chelsea", "coffee", "astronaut")]
    drawn = random.Random(0)
    folders = {size: root / f"{size}-images" for size in sizes}
    with CountedWork("making images", "image", max(sizes)) as work:
        for number in range(max(sizes)):
            photo = photos[number // 100 % len(photos)]
            x, y = (drawn.randrange(length - SIDE) for length in photo.size)
            name = f"{number // 100:04d}/{number:06d}.jpg"
            path = folders[max(sizes)] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            photo.crop((x, y, x + SIDE, y + SIDE)).save(path)
            for size, folder in folders.items():
                if number < size < max(sizes):
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    os.link(path, folder / name)
            work.update(1)
    return folders


def pair_list(folder: Path, num_images: int) -> Path:
    """Writes a list of random pairs of a collection beside its folder."""
    images = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    drawn = random.Random(1)
    path = folder.with_suffix(".csv")
    rows = (",".join(drawn.sample(images, 2)) for _ in range(LISTED_PER_IMAGE * num_images))
    path.write_text("source,target\n" + "\n".join(rows) + "\n")
    return path


def requests(folder: Path, num_images: int) -> dict[str, CollectionConfig]:
    """The choices of pairs that are measured, each by its name in words."""
    listed = str(pair_list(folder, num_images))
    return {
        "all pairs": CollectionConfig(str(folder), All(), max_pairs=MAX_PAIRS),
        f"{REACH} neighbours": CollectionConfig(str(folder), Neighbours(REACH), max_pairs=MAX_PAIRS),
        "random list": CollectionConfig(str(folder), PairList(listed), max_pairs=MAX_PAIRS),
    }


def measure_collections(folders: dict[int, Path], scratch: Path) -> Iterator[CollectionCost]:
    """The cost of each choice of pairs of each collection, printed as it is measured."""
    network, engine = MODEL.load(Resources()), choose_engine()
    bytes_per_image = MODEL.bytes_per_image()

    def match(job: BlockJob) -> dict[str, int]:
        block = job.open()
        for pair in match_block(network, engine, block, ROWS, ONE_AT_A_TIME):
            assert isinstance(pair, MatchedPair)
            ROWS(pair)
        return {"block_pairs": len(block.pairs), "block_images": len(block.images)}

    warm_up = CollectionConfig(str(folders[min(folders)]), Neighbours(1), max_pairs=3)
    with open_collection("warm-up", warm_up, bytes_per_image) as collection:
        match(middle_job(collection))
    for size, folder in folders.items():
        for words, config in requests(folder, size).items():
            with ExitStack() as stack:
                collection, plan_seconds, plan_mb = costs(
                    partial(stack.enter_context, open_collection("c", config, bytes_per_image, location_of(scratch)))
                )
                job = middle_job(collection)  # the plan is gone through once, not for each block
                counts, seconds, block_mb = costs(partial(match, job))
                seconds = min(seconds, costs(partial(match, job))[1])
                summary = collection.plan.summary
                cost = CollectionCost(
                    size, words, summary.num_pairs, summary.described_per_pair, summary.ideal_described_per_pair,
                    plan_seconds, plan_mb, 1000 * seconds / counts["block_pairs"], block_mb, **counts,
                )  # fmt: skip
            print(
                f"{size:>7,} images, {words:<13} {cost.num_pairs:>12,} pairs {cost.cpu_ms_per_pair:>7.1f} ms per pair "
                f"{cost.described_per_pair:>7.3f} images described per pair (fewest {cost.fewest:.3f}) planned in "
                f"{plan_seconds:.1f} s; {plan_mb:.0f} + {block_mb:.0f} MB",
                flush=True,
            )
            yield cost


def measure_half_precision(folder: Path) -> dict[str, float]:
    """The effect of features in float16: on memory, and on where random points of one block's pairs are transferred."""
    network, engine = MODEL.load(Resources()), choose_engine()
    drawn = np.random.default_rng(0)
    config = CollectionConfig(str(folder), Neighbours(REACH), max_pairs=80)
    with open_collection("half", config, MODEL.bytes_per_image()) as collection:
        block = middle_job(collection).open()
    pairs = [replace(p, source_keypoints=drawn.uniform(0, SIDE, (20, 2)).astype(np.float32)) for p in block.pairs]
    moved = []
    for feature_type in get_args(FeatureType):
        options = replace(ONE_AT_A_TIME, features=feature_type)
        found = match_block(network, engine, replace(block, pairs=pairs), ROWS, options)
        moved.append(np.array([ROWS(pair)["transferred_points"] for pair in found if isinstance(pair, MatchedPair)]))
    distance = np.linalg.norm(moved[0] - moved[1], axis=2)
    return {
        "num_points": distance.size,
        "share_moved_by_more_than_0.01_px": float((distance > 0.01).mean()),
        "share_moved_by_more_than_1_px": float((distance > 1).mean()),
        "largest_move_px": float(distance.max()),
        "memory_ratio": MODEL.bytes_per_image() / MODEL.bytes_per_image("float16"),
    }


def middle_job(collection: Collection) -> BlockJob:
    """The job of the block in the middle of the plan, as an actor gets it."""
    [job] = collection.jobs({block_name(collection.plan.summary.num_blocks // 2)})
    return job


def costs(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result of `work`, its CPU time in seconds and its highest extra memory in MB."""
    results: list[Any] = []
    started = time.process_time()
    extra = extra_megabytes(lambda: results.append(work()))
    return results[0], time.process_time() - started, extra


def measure_actors(folder: Path, work: Path, rounds: int) -> dict[int, list[float]]:
    """Pairs per second with one and two actors, round by round."""
    images = CollectionConfig(str(folder), Neighbours(8), max_pairs=40)
    rates: dict[int, list[float]] = {1: [], 2: []}
    cluster = ray_cluster(None, 4, location_of(work), "")
    with cluster, open_collection("actors", images, MODEL.bytes_per_image()) as collection:
        for number in range(rounds):
            for num_actors, found in rates.items():
                root = work / f"{number}-{num_actors}"
                output = StageOutput(root)
                output.plan({"stage": "match", "tasks": collection.tasks})
                config = MatchConfig(collections={"actors": images}, num_actors=num_actors)
                match_blocks(collection, MODEL, ROWS, output, config, title=f"{num_actors} actors", options=AS_SUITS)
                found.append(rate(output, root))
                print(f"{num_actors} actors: {found[-1]:.1f} pairs per second", flush=True)
    return rates


def rate(output: StageOutput, root: Path) -> float:
    """Pairs per second of a stage output, from the end of its first third of blocks: by then all actors have begun."""
    ends = {task: (root / "commits" / f"{task}.json").stat().st_mtime for task in output.committed()}
    infos = {task: commit.info for task, commit in output.committed().items()}
    ordered = sorted(ends, key=ends.__getitem__)
    begin = ordered[len(ordered) // 3 - 1]
    num_pairs = sum(infos[task]["num_pairs"] for task in ordered[len(ordered) // 3 :])
    return float(num_pairs / (ends[ordered[-1]] - ends[begin]))
