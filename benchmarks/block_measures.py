"""The measurements of benchmarks.blocks. Importing this module imports Ray."""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest import mock

import obstore

from benchmarks.memory import extra_megabytes
from dhpf.config import ModelConfig
from dhpf.manifest import CommitRecord
from dhpf.pipelines.blocks.caution import Caution
from dhpf.pipelines.blocks.pool import BlockActor, BlockWork, do_blocks
from dhpf.pipelines.cluster import ray_cluster
from dhpf.pipelines.config import Resources
from dhpf.pipelines.inputs.block_source import BlockJob, CollectionJob
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching.block_matching import WorkerSettings
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.outputs.writers import PART, file_name
from dhpf.pipelines.stages.match import CorrespondenceRows
from dhpf.planning.blocks import PlannedBlock, block_name
from dhpf.planning.spans import Span
from dhpf.storage import FileLocation, location_of

PART_BYTES = 4_000
PAIRS = 10
TIMED_COMMITS = 100
ACTORS = 2


class EmptyBlocks:
    """Blocks whose pairs and images do not exist; what an actor gets of each is as large as of a real one."""

    name, digest, rejected = "empty", "digest", None
    settings: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, num_blocks: int) -> None:
        self.tasks = [block_name(number) for number in range(num_blocks)]
        self.num_pairs = PAIRS * num_blocks

    def jobs(self, missing: set[str]) -> Iterator[CollectionJob]:
        """The jobs of the blocks in `missing`, made one at a time."""
        for number, task in enumerate(self.tasks):
            if task in missing:
                span = Span(number, number + 1, number + 1, number + 1 + PAIRS)
                block = PlannedBlock(number, PAIRS * number, PAIRS, PAIRS + 1, 0, (span,))
                images = {
                    position: f"{position // 100:04d}/{position:09d}.jpg" for position in range(number, number + 11)
                }
                yield CollectionJob("photos", block, None, images)

    def read(self, image_id: str) -> bytes:
        """No image is read."""
        raise NotImplementedError


@dataclass(frozen=True)
class EmptySettings(WorkerSettings):
    """Makes an `EmptyWorker`; what is sent to the actors is as large as for a real one."""

    def worker(self) -> EmptyWorker:  # type: ignore[override]
        """Loads no model."""
        return EmptyWorker(self)


class EmptyWorker:
    """Commits a part of the usual size for each block, without matching."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._output = StageOutput(settings.root)

    def work(self, job: BlockJob, caution: Caution) -> CommitRecord:
        """Commits the block of a job."""
        return commit_part(self._output, job.task)


def commit_part(output: StageOutput, task: str) -> CommitRecord:
    """Commits a part of the usual size, with the usual counts."""
    info = {"num_pairs": PAIRS, "num_failed": 0, "first_failure": None, "num_described": PAIRS + 1, "seconds": 1.23456}
    return output.commit(task, {file_name(PART): bytes(PART_BYTES)}, info)


def settings_of(root: str) -> EmptySettings:
    """What the actors of an output are made from."""
    model = ModelSource(ModelConfig(selection="fixed", layers=(11,)))
    return EmptySettings(model, CorrespondenceRows(50, False, "model", "code"), root, Resources(), "torch")


def measure_requests(place: str) -> Mapping[str, float]:
    """How many requests of each kind an actor makes for a block, in a bucket."""
    output = StageOutput(location_of(place) / "requests")
    pairs, actor = EmptyBlocks(20), BlockActor([settings_of(str(output.root))], 300)
    actor.prepare()
    jobs = list(pairs.jobs(set(pairs.tasks)))
    with counted_requests() as counts:
        for job in jobs:
            actor.work(0, job, 1, {})
    return {name: round(number / len(jobs), 2) for name, number in sorted(counts.items())} | {
        "all": round(counts.total() / len(jobs), 2)
    }


@contextmanager
def counted_requests() -> Iterator[Counter[str]]:
    """Counts what this process asks of buckets meanwhile; a listing counts once, however many pages it has."""
    counts: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., Any]:
        original = getattr(obstore, name)

        def call(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return original(*arguments, **options)

        return call

    with ExitStack() as stack:
        for name in ("put", "get", "get_range", "head", "list", "delete"):
            stack.enter_context(mock.patch.object(obstore, name, counting(name)))
        yield counts


def measure_pool(place: str, work: Path, num_blocks: int) -> Mapping[str, float]:
    """Handing out empty blocks to real actors that commit them, once all actors have begun.

    Returns:
        seconds, the driver's CPU seconds, and the driver's growth in MB, each per 1,000 blocks.
    """
    pairs, root = EmptyBlocks(num_blocks), location_of(place) / "pool"
    output, settings = StageOutput(root), settings_of(str(root))
    output.plan({"stage": "match", "tasks": pairs.tasks})
    marks: list[tuple[float, float, float]] = []

    def watched() -> Iterator[CollectionJob]:
        for job in pairs.jobs(set(pairs.tasks)):
            marks.append((time.perf_counter(), time.process_time(), resident_megabytes()))
            yield job

    with ray_cluster(None, ACTORS, location_of(work), ""):
        blocks = BlockWork(settings, watched(), output)
        for _ in do_blocks([blocks], Resources(), stuck_after=600, num_blocks=num_blocks, least=ACTORS, most=ACTORS):
            pass
    begin = num_blocks // 5
    grown = [last - first for first, last in zip(marks[begin], marks[-1], strict=True)]
    names = ("seconds", "driver_cpu_s", "driver_mb")
    return {name: round(1000 * one / (num_blocks - begin), 2) for name, one in zip(names, grown, strict=True)}


def resident_megabytes() -> float:
    """Memory of this process that is in use now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def measure_store(place: str, num_tasks: int) -> Mapping[str, float]:
    """The cost of one commit, and of going on with and finishing a stage that a driver left when all was committed."""
    root = location_of(place) / f"store-{num_tasks}"
    tasks = [block_name(number) for number in range(num_tasks)]
    output = StageOutput(root)
    output.plan({"stage": "match", "tasks": tasks})
    figures = {"plan_bytes": float(len((root / "PLAN.json").read()))}
    commit = timed(partial(commit_and_note, output, tasks[:TIMED_COMMITS]))
    figures["commit_ms"] = round(1000 * commit["s"] / TIMED_COMMITS, 2)
    commit_quickly(output, tasks[TIMED_COMMITS:])
    following = StageOutput(root)
    for name, work in (
        ("missing", following.missing),
        ("committed", following.committed),
        ("finish", partial(following.finish, {"stage": "match"})),
    ):
        figures |= {f"{name}_{unit}": amount for unit, amount in timed(work).items()}
    root.delete_all()
    return figures


def commit_and_note(output: StageOutput, tasks: list[str]) -> None:
    """What is asked of the store for blocks, by their actor and by the driver, which hears of it."""
    for task in tasks:
        output.note(commit_part(output, task))


def commit_quickly(output: StageOutput, tasks: list[str]) -> None:
    """Commits many tasks at once; files are not forced to the disk."""
    threads = 4 if isinstance(output.root, FileLocation) else 32
    with mock.patch.object(os, "fsync", lambda _: None), ThreadPoolExecutor(threads) as executor:
        for commit in executor.map(lambda task: commit_part(output, task), tasks):
            output.note(commit)


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Seconds and CPU seconds that work takes, and its highest extra memory in MB."""
    figures: dict[str, float] = {}

    def clocked() -> None:
        started, cpu = time.perf_counter(), time.process_time()
        work()
        figures["s"] = round(time.perf_counter() - started, 2)
        figures["cpu_s"] = round(time.process_time() - cpu, 2)

    figures["mb"] = round(extra_megabytes(clocked))
    return figures
