"""Has the pool of Ray actors match blocks and commit a table for each.

The evaluate and the match stage differ in the rows that they make of a pair.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

from dhpf.pipelines.blocks.pool import BlockWork, do_blocks
from dhpf.pipelines.config import MatchingConfig
from dhpf.pipelines.inputs.block_source import BlockSource
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching.block_matching import MatchOptions, WorkerSettings
from dhpf.pipelines.matching.matched_pair import RowMaker
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.progress import CountedWork

REPORT_SECONDS = 5.0
"""Least time between two reports of progress."""


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
    num_actors = min(config.num_actors, len(missing))
    jobs = (replace(job, earlier=output.retried(job.task)) for job in pairs.jobs(missing))
    found = do_blocks(
        [BlockWork(settings, jobs, output)],
        config.resources,
        stuck_after=config.stuck_after,
        num_blocks=len(missing),
        least=min(config.min_actors or num_actors, num_actors),
        most=num_actors,
    )
    started = reported = time.time()
    num_pairs = num_failed = 0
    with CountedWork(title, "pair", pairs.num_pairs - num_before) as work, closing(found):
        for _, commit in found:
            info = commit.info
            num_pairs, num_failed = num_pairs + int(info["num_pairs"]), num_failed + int(info["num_failed"])
            work.update(int(info["num_pairs"]), f"{num_failed} failed" if num_failed else "")
            if time.time() - reported > REPORT_SECONDS:
                reported = time.time()
                report(Progress(num_pairs, num_failed, reported - started))
