"""Has the pool of Ray actors match blocks and commit a table for each.

The evaluate and the match stage differ in the rows that they make of a pair.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace

from dhpf.errors import InputError
from dhpf.manifest import CommitRecord
from dhpf.pipelines.blocks.pool import BlockWork, do_blocks
from dhpf.pipelines.blocks.trials import is_from_outside
from dhpf.pipelines.config import MatchingConfig
from dhpf.pipelines.inputs.block_source import BlockSource
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching.block_matching import MatchOptions, WorkerSettings
from dhpf.pipelines.matching.matched_pair import RowMaker
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.progress import CountedWork

REPORT_SECONDS = 5.0
"""Least time between two reports of progress."""


LEAST_TRIED = 200
"""Pairs that are tried before a run may stop because too many have failed."""


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


@dataclass
class Tried:
    """The pairs that a run has tried so far.

    Attributes:
        num_pairs: how many.
        num_failed: of these, pairs that could not be matched.
        num_ended: of these, pairs of what was ended from outside.
        reasons: why the others failed, without names of images, and how often; of each block the most frequent.
    """

    num_pairs: int = 0
    num_failed: int = 0
    num_ended: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, commit: CommitRecord) -> None:
        """Adds the pairs of a block."""
        self.num_pairs += int(commit.info["num_pairs"])
        self.num_failed += int(commit.info["num_failed"])
        for why, number in commit.info.get("reasons", {}).items():
            if is_from_outside(why):
                self.num_ended += number
            else:
                self.reasons[why] += number

    def require_hope(self, title: str, most: float) -> None:
        """Refuses to go on where more than a share of the pairs have failed.

        Args:
            title: what the work is called, the stage's name first.
            most: the share.

        Raises:
            InputError: see above.
        """
        num_failed = self.num_failed - self.num_ended
        if self.num_pairs >= LEAST_TRIED and num_failed > most * self.num_pairs:
            [(why, number)] = self.reasons.most_common(1)
            raise InputError(
                f"{title}: {num_failed} of the {self.num_pairs} pairs that were tried have failed, {number} of them "
                f"because: {why}; what is done stays; mend that, or allow more by --set "
                f"{title.split()[0]}.max_failed_share=1, and the same command goes on from here"
            )


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
        InputError: something that a block needs, such as its shard, cannot be read, and no image is at fault, or too
            many pairs fail; blocks that were committed stay.
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
    tried = Tried()
    with CountedWork(title, "pair", pairs.num_pairs - num_before) as work, closing(found):
        for _, commit in found:
            tried.add(commit)
            missing.remove(commit.task)
            work.update(int(commit.info["num_pairs"]), f"{tried.num_failed} failed" if tried.num_failed else "")
            if missing:
                tried.require_hope(title, config.max_failed_share)
            if time.time() - reported > REPORT_SECONDS:
                reported = time.time()
                report(Progress(tried.num_pairs, tried.num_failed, reported - started))
