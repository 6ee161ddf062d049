"""Pool of Ray actors that match blocks and commit a table for each.

The evaluate and the match stage share the pool; they differ in the rows that they make of a pair.
"""

from __future__ import annotations

import logging
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.util.annotations import RayDeprecationWarning

from dhpf.errors import InputError
from dhpf.manifest import CommitRecord
from dhpf.pipelines.cluster_metrics import BlocksLeft
from dhpf.pipelines.config import MatchingConfig
from dhpf.pipelines.inputs.block_source import BlockJob, BlockSource, block_job_from_json
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching.block_matching import BlockWorker, MatchOptions, WorkerSettings
from dhpf.pipelines.matching.describing import Caution
from dhpf.pipelines.matching.matched_pair import RowMaker
from dhpf.pipelines.matching.quarantine import Quarantine, match_in_quarantine, refused
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.progress import CountedWork

REPORT_SECONDS = 5.0
"""Least time between two reports of progress."""

BLOCKS_OF_ACTOR = 100
"""Blocks that one pool matches, per actor; then a new pool is started, which takes little time."""

MAX_ATTEMPTS = 4
"""How often a run begins a block, all but the first time in quarantine, before it gives the block up."""

MAX_RESTARTS, MAX_TASK_RETRIES = 100, 20
"""Ray's limits, for actors that end through no fault of a block. They are far above what bad images need: an image
ends an actor only once, because its block is matched in quarantine afterwards."""


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
    started = reported = time.time()
    num_pairs = num_failed = 0
    with CountedWork(title, "pair", pairs.num_pairs - num_before) as work, BlocksLeft(rows.stage, len(missing)) as left:
        for row in _matched(pairs.jobs(missing), settings, config):
            if row["stopped"]:
                raise InputError(str(row["stopped"]))
            left.one_done()
            num_pairs, num_failed = num_pairs + int(row["num_pairs"]), num_failed + int(row["num_failed"])
            work.update(int(row["num_pairs"]), f"{num_failed} failed" if num_failed else "")
            if time.time() - reported > REPORT_SECONDS:
                reported = time.time()
                report(Progress(num_pairs, num_failed, reported - started))


def _matched(jobs: Iterable[BlockJob], settings: WorkerSettings, config: MatchingConfig) -> Iterator[Mapping[str, Any]]:
    """Yields the counts of each block once it is committed, or why it stopped; takes the jobs of one pool at a time."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Ray deprecates **ray_remote_args, and offers no other way yet to pass max_task_retries and max_restarts.
    warnings.filterwarnings("ignore", category=RayDeprecationWarning, message=".*ray_remote_args.*")
    run = uuid.uuid4().hex
    waiting = iter(jobs)
    while chunk := list(islice(waiting, BLOCKS_OF_ACTOR * config.num_actors)):
        items = [{"job": job.to_json()} for job in chunk]
        # A pool is never larger than the work; Ray Data also needs free CPUs beside its actors.
        largest = min(config.num_actors, len(items))
        pool = ActorPoolStrategy(min_size=min(config.min_actors or largest, largest), max_size=largest)
        yield from (
            ray.data.from_items(items, override_num_blocks=len(items))
            .map_batches(
                BlockMatcher,
                fn_constructor_args=(settings, run),
                batch_size=1,
                batch_format="numpy",
                compute=pool,
                num_cpus=config.resources.cpus,
                num_gpus=config.resources.gpus,
                max_task_retries=MAX_TASK_RETRIES,
                max_restarts=MAX_RESTARTS,
            )
            .iter_rows()
        )


class BlockMatcher:
    """Ray actor that matches one block at a time, in quarantine if the block ended a process before.

    Args:
        run: unique name of this run of the stage; attempts at a block are counted by run.
    """

    def __init__(self, settings: WorkerSettings, run: str) -> None:
        self._settings, self._run = settings, run
        self._worker = BlockWorker(settings)
        self._output = StageOutput(settings.root)
        self._quarantine = Quarantine(self._output.root)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        (text,) = batch["job"]
        try:
            info = self._commit(block_job_from_json(str(text))).info
        except InputError as error:  # returned, because Ray would wrap a raised one in its own traceback
            return {"num_pairs": [0], "num_failed": [0], "stopped": [str(error)]}
        return {"num_pairs": [info["num_pairs"]], "num_failed": [info["num_failed"]], "stopped": [""]}

    def _commit(self, job: BlockJob) -> CommitRecord:
        done = self._output.commit_of(job.task)
        if done is not None:  # a lost machine takes its actor's answer with it, but not the commit
            return done
        attempt = self._output.begin(job.task, self._run)
        if attempt == 1:
            return self._worker.match(job, Caution(self._quarantine.images()))
        reason = f"not tried: {job.task} ended its worker's process {attempt - 1} times"
        if attempt <= MAX_ATTEMPTS:
            found = match_in_quarantine(self._settings, job)
            if isinstance(found, CommitRecord):
                return found
            reason = found
        return self._worker.match(job, refused(job, reason))
