"""Pool of Ray actors that do the blocks of a stage: each block is done once, whatever becomes of the actors.

All stages that work by blocks share the pool; they differ in the worker that does a block.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from functools import cached_property
from typing import Any, Generic

import ray

from dhpf.manifest import CommitRecord
from dhpf.pipelines.blocks.actors import answers
from dhpf.pipelines.blocks.caution import Caution
from dhpf.pipelines.blocks.pace import Pace
from dhpf.pipelines.blocks.quarantine import Quarantine, try_in_quarantine
from dhpf.pipelines.blocks.work import AnyJob, Settings, Worker
from dhpf.pipelines.cluster_metrics import BlocksLeft
from dhpf.pipelines.config import Resources
from dhpf.pipelines.outputs.store import StageOutput


def do_blocks(
    settings: Settings[AnyJob],
    jobs: Iterator[AnyJob],
    output: StageOutput,
    resources: Resources,
    *,
    stuck_after: float,
    num_blocks: int,
    least: int,
    most: int,
) -> Generator[CommitRecord]:
    """Has actors do every job, and yields the commits, which `output` then knows, in the order in which they come.

    Args:
        resources: what one actor reserves.
        stuck_after: seconds that any block may take, see MatchingConfig.
        num_blocks: how many jobs there are.
        least, most: actors that are asked for at first, and once these are there.

    Raises:
        InputError: something that a block needs cannot be read, and no image is at fault; blocks that were committed
            stay.
    """
    quarantine = Quarantine(output.root)
    quarantined = quarantine.images()
    pace, begun_at = Pace(stuck_after), dict[str, float]()
    make = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_restarts=0, scheduling_strategy="SPREAD")(
        BlockActor
    )

    def call(actor: Any, job: AnyJob, attempt: int) -> Any:
        begun_at[job.task] = time.monotonic()
        return actor.work.remote(job, attempt, quarantined)

    def limit(job: AnyJob | None, attempt: int) -> float:
        return pace.limit(0 if job is None else job.num_pairs, attempt)

    found = answers(jobs, lambda: make.remote(settings, stuck_after / 2), call, least=least, most=most, limit=limit)
    with BlocksLeft(settings.stage, num_blocks) as left, closing(found):
        for commit, attempt in found:
            output.note(commit)
            left.one_done()
            seconds = time.monotonic() - begun_at.pop(commit.task)
            if attempt == 1:
                pace.note(int(commit.info["num_pairs"]), seconds)
            else:
                quarantined = quarantine.images()
            yield commit


class BlockActor(Generic[AnyJob]):
    """Ray actor that does one block at a time, in quarantine if the block was begun before.

    Args:
        seconds_of_a_step: how long a step may take in quarantine.
    """

    def __init__(self, settings: Settings[AnyJob], seconds_of_a_step: float) -> None:
        self._settings, self._seconds_of_a_step = settings, seconds_of_a_step

    @cached_property
    def _worker(self) -> Worker[AnyJob]:
        return self._settings.worker()

    def arrive(self) -> None:
        """Ends when the cluster has made room for the actor."""

    def prepare(self) -> None:
        """Makes the worker; not when the actor is made, because an error would then be Ray's."""
        assert self._worker

    def work(self, job: AnyJob, attempt: int, quarantined: Mapping[str, str]) -> CommitRecord | None:
        """Does the block of a job and commits it.

        Args:
            attempt: how often the run has begun the block, this time included.
            quarantined: why images, by id, are left out.

        Returns:
            the commit; None where the block is to be tried again.

        Raises:
            InputError: something that the block needs cannot be read, and no image is at fault.
        """
        if attempt == 1:
            return self._worker.work(job, Caution(quarantined))
        done = StageOutput(self._settings.root).commit_of(job.task)
        if done is not None:  # a lost machine takes its actor's answer with it, but not the commit
            return done
        return try_in_quarantine(self._settings, job, self._seconds_of_a_step)
