"""Pool of Ray actors that do the blocks of a stage: each block is done once, whatever becomes of the actors.

All stages that work by blocks share the pool; they differ in the worker that does a block.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from functools import cached_property
from typing import Any, Generic

import ray

from dhpf.manifest import CommitRecord
from dhpf.pipelines.blocks.actors import answers
from dhpf.pipelines.blocks.caution import Caution
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
    num_blocks: int,
    least: int,
    most: int,
) -> Generator[CommitRecord]:
    """Has actors do every job, and yields the commits, which `output` then knows, in the order in which they come.

    Args:
        resources: what one actor reserves.
        num_blocks: how many jobs there are.
        least, most: actors that are asked for at first, and once these are there.

    Raises:
        InputError: something that a block needs cannot be read, and no image is at fault; blocks that were committed
            stay.
    """
    quarantine = Quarantine(output.root)
    quarantined = quarantine.images()
    make = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_restarts=0, scheduling_strategy="SPREAD")(
        BlockActor
    )

    def call(actor: Any, job: AnyJob, attempt: int) -> Any:
        return actor.work.remote(job, attempt, quarantined)

    found = answers(jobs, lambda: make.remote(settings), call, least=least, most=most)
    with BlocksLeft(settings.stage, num_blocks) as left, closing(found):
        for commit, attempt in found:
            output.note(commit)
            left.one_done()
            if attempt > 1:
                quarantined = quarantine.images()
            yield commit


class BlockActor(Generic[AnyJob]):
    """Ray actor that does one block at a time, in quarantine if the block was begun before."""

    def __init__(self, settings: Settings[AnyJob]) -> None:
        self._settings = settings

    @cached_property
    def _worker(self) -> Worker[AnyJob]:
        return self._settings.worker()

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
        return try_in_quarantine(self._settings, job)
