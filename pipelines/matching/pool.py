"""Pool of Ray actors that match blocks and commit a table for each.

The evaluate and the match stage share the pool; they differ in the rows that they make of a pair.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ray

from dhpf.manifest import CommitRecord
from dhpf.pipelines.cluster_metrics import BlocksLeft
from dhpf.pipelines.config import MatchingConfig
from dhpf.pipelines.inputs.block_source import BlockJob, BlockSource, block_job_from_json
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching.actors import answers
from dhpf.pipelines.matching.block_matching import BlockWorker, MatchOptions, WorkerSettings
from dhpf.pipelines.matching.describing import Caution
from dhpf.pipelines.matching.matched_pair import RowMaker
from dhpf.pipelines.matching.quarantine import Quarantine, match_in_quarantine, refused
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.progress import CountedWork

REPORT_SECONDS = 5.0
"""Least time between two reports of progress."""

MAX_ATTEMPTS = 4
"""How often a run begins a block, all but the first time in quarantine, before it gives the block up."""


@dataclass(frozen=True)
class Progress:
    """How far matching has come.

    Attributes:
        num_pairs: done in this run.
        num_failed: of these, pairs that could not be matched.
        seconds: since the first block was handed out.
    """

    num_pairs: int
    num_failed: int
    seconds: float


def match_blocks(
    pairs: BlockSource,
    model: ModelSource,
    rows: RowMaker,
    output: StageOutput,
    config: MatchingConfig,
    *,
    title: str,
    options: MatchOptions,
    report: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Has actors match every block of the plan whose table is not committed yet.

    Args:
        title: what the progress display calls the work.
        options: how blocks are matched.
        report: called with the progress every few seconds.

    Raises:
        InputError: something that a block needs, such as its shard, cannot be read, and no image is at fault; blocks
            that were committed stay.
    """
    done = output.committed()
    missing = {task for task in pairs.tasks if task not in done}
    if not missing:
        return
    settings = WorkerSettings(model, rows, str(output.root), config.resources, config.engine, options)
    num_before = sum(int(commit.info.get("num_pairs", 0)) for commit in done.values())
    quarantine = Quarantine(output.root)
    quarantined = quarantine.images()
    num_actors = min(config.num_actors, len(missing))
    own = config.resources
    make = ray.remote(num_cpus=own.cpus, num_gpus=own.gpus, max_restarts=0, scheduling_strategy="SPREAD")(BlockMatcher)

    def call(actor: Any, job: BlockJob, attempt: int) -> Any:
        return actor.match.remote(job.to_json(), attempt, quarantined)

    started = reported = time.time()
    num_pairs = num_failed = 0
    found = answers(
        pairs.jobs(missing),
        lambda: make.remote(settings),
        call,
        least=min(config.min_actors or num_actors, num_actors),
        most=num_actors,
    )
    with (
        CountedWork(title, "pair", pairs.num_pairs - num_before) as work,
        BlocksLeft(rows.stage, len(missing)) as left,
        closing(found),
    ):
        for commit, attempt in found:
            output.note(commit)
            left.one_done()
            if attempt > 1:
                quarantined = quarantine.images()
            info = commit.info
            num_pairs, num_failed = num_pairs + int(info["num_pairs"]), num_failed + int(info["num_failed"])
            work.update(int(info["num_pairs"]), f"{num_failed} failed" if num_failed else "")
            if time.time() - reported > REPORT_SECONDS:
                reported = time.time()
                report(Progress(num_pairs, num_failed, reported - started))


class BlockMatcher:
    """Ray actor that matches one block at a time, in quarantine if the block ended a process before."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings

    @cached_property
    def _worker(self) -> BlockWorker:
        return BlockWorker(self._settings)

    def prepare(self) -> None:
        """Loads the model; not when the actor is made, because an error would then be Ray's."""
        assert self._worker

    def match(self, job: str, attempt: int, quarantined: Mapping[str, str]) -> CommitRecord:
        """Matches the block of a job and commits it.

        Args:
            job: JSON of a BlockJob.
            attempt: how often the run has begun the block, this time included.
            quarantined: why images, by id, are left out.

        Raises:
            InputError: something that the block needs cannot be read, and no image is at fault.
        """
        return self._commit(block_job_from_json(job), attempt, Caution(quarantined))

    def _commit(self, job: BlockJob, attempt: int, caution: Caution) -> CommitRecord:
        if attempt == 1:
            return self._worker.match(job, caution)
        done = StageOutput(self._settings.root).commit_of(job.task)
        if done is not None:  # a lost machine takes its actor's answer with it, but not the commit
            return done
        reason = f"not tried: {job.task} ended its worker's process {attempt - 1} times"
        if attempt <= MAX_ATTEMPTS:
            found = match_in_quarantine(self._settings, job)
            if isinstance(found, CommitRecord):
                return found
            reason = found
        return self._worker.match(job, refused(job, reason))
