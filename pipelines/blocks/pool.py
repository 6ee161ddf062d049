"""Pool of Ray actors that do the blocks of a stage: each block is done once, whatever becomes of the actors.

All stages that work by blocks share the pool; they differ in the worker that does a block. One pool does the blocks of
one or of several outputs, so that a stage with many small outputs starts its processes once.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
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


@dataclass(frozen=True)
class BlockWork(Generic[AnyJob]):
    """The blocks of one stage output that are still to be done.

    Attributes:
        settings: what the worker that does them is made from.
        jobs: a job for each block; taken one by one, as actors become free.
        output: what they are committed to.
    """

    settings: Settings[AnyJob]
    jobs: Iterator[AnyJob]
    output: StageOutput


def do_blocks(
    works: Sequence[BlockWork[AnyJob]],
    resources: Resources,
    *,
    stuck_after: float,
    num_blocks: int,
    least: int,
    most: int,
) -> Generator[tuple[int, CommitRecord]]:
    """Has actors do every job of these works of a stage, one work after the other.

    Args:
        resources: what one actor reserves.
        stuck_after: seconds that any block may take, see MatchingConfig.
        num_blocks: how many jobs there are in all.
        least, most: actors that are asked for at first, and once these are there.

    Yields:
        the place of a work in `works` and a commit, which its output then knows, in the order in which they come.

    Raises:
        InputError: something that a block needs cannot be read, and no image is at fault; blocks that were committed
            stay.
    """
    quarantines = [Quarantine(work.output.root) for work in works]
    quarantined = [quarantine.images() for quarantine in quarantines]
    paces = [Pace(stuck_after) for _ in works]
    begun_at: dict[tuple[int, str], float] = {}
    settings = tuple(work.settings for work in works)
    make = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_restarts=0, scheduling_strategy="SPREAD")(
        BlockActor
    )

    def call(actor: Any, placed: tuple[int, AnyJob], attempt: int) -> Any:
        place, job = placed
        begun_at[place, job.task] = time.monotonic()
        return actor.work.remote(place, job, attempt, quarantined[place])

    def limit(placed: tuple[int, AnyJob] | None, attempt: int) -> float:
        return paces[0].limit(0, attempt) if placed is None else paces[placed[0]].limit(placed[1].num_pairs, attempt)

    jobs = ((place, job) for place, work in enumerate(works) for job in work.jobs)
    found = answers(jobs, lambda: make.remote(settings, stuck_after / 2), call, least=least, most=most, limit=limit)
    with BlocksLeft(settings[0].stage, num_blocks) as left, closing(found):
        for (place, commit), attempt in found:
            works[place].output.note(commit)
            left.one_done()
            seconds = time.monotonic() - begun_at.pop((place, commit.task))
            if attempt == 1:
                paces[place].note(int(commit.info["num_pairs"]), seconds)
            else:
                quarantined[place] = quarantines[place].images()
            yield place, commit


class BlockActor(Generic[AnyJob]):
    """Ray actor that does one block at a time, in quarantine if the block was begun before.

    Args:
        settings: of each work of the pool.
        seconds_of_a_step: how long a step may take in quarantine.
    """

    def __init__(self, settings: Sequence[Settings[AnyJob]], seconds_of_a_step: float) -> None:
        self._settings, self._seconds_of_a_step = settings, seconds_of_a_step
        self._workers: dict[int, Worker[AnyJob]] = {}

    def arrive(self) -> None:
        """Ends when the cluster has made room for the actor."""

    def prepare(self) -> None:
        """Makes the first worker; not when the actor is made, because an error would then be Ray's."""
        assert self._worker(0)

    def work(
        self, place: int, job: AnyJob, attempt: int, quarantined: Mapping[str, str]
    ) -> tuple[int, CommitRecord] | None:
        """Does the block of a job and commits it.

        Args:
            place: of the job's work among those of the pool.
            attempt: how often the run has begun the block, this time included.
            quarantined: why images, by id, are left out.

        Returns:
            the place and the commit; None where the block is to be tried again.

        Raises:
            InputError: something that the block needs cannot be read, and no image is at fault.
        """
        try:
            return self._work(place, job, attempt, quarantined)
        except Exception as error:
            error.add_note(f"while it did {job.task}")
            raise

    def _work(
        self, place: int, job: AnyJob, attempt: int, quarantined: Mapping[str, str]
    ) -> tuple[int, CommitRecord] | None:
        if attempt == 1:
            return place, self._worker(place).work(job, Caution(quarantined))
        settings = self._settings[place]
        commit = StageOutput(settings.root).commit_of(job.task)  # a lost machine takes its answer with it, not this
        if commit is None:
            commit = try_in_quarantine(settings, job, self._seconds_of_a_step)
        return None if commit is None else (place, commit)

    def _worker(self, place: int) -> Worker[AnyJob]:
        """The worker for a work of the pool, kept until one for another is wanted: works follow each other."""
        if place not in self._workers:
            self._workers = {place: self._settings[place].worker()}
        return self._workers[place]
