"""Tries the failed pairs of stage outputs again, for --retry-errors, and counts what came of it.

Blocks that hold failed pairs are marked, as `dhpf verify --repair` marks damaged ones, and are then the only ones that
a run does. Its workers take what had not failed from the earlier result of the block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dhpf.manifest import CommitRecord
from dhpf.pipelines.blocks.quarantine import Quarantine
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.planning.plan_summary import counted

NumFailed = Callable[[CommitRecord], int]
"""How many pairs of a block failed."""


@dataclass(frozen=True)
class Retried:
    """How many pairs of an output had failed, and how many of these have failed again."""

    num_failed: int
    num_left: int


class Retry:
    """The failed pairs of a run's outputs.

    Attributes:
        results: what came of them, by the output's title, such as "match photos".
    """

    def __init__(self) -> None:
        self.results: dict[str, Retried] = {}
        self._tasks: dict[str, dict[str, int]] = {}

    def begin(self, title: str, output: StageOutput, failed: NumFailed, besides: Sequence[str] = ()) -> None:
        """Marks the blocks with failed pairs, complete output or not; images that ended workers get another chance.

        The plan of the output must have been found the same before.

        Args:
            besides: tasks that are to be done again whenever a block is.
        """
        manifest = output.manifest()
        commits = output.committed().values() if manifest is None else manifest.commits
        counts = {commit.task: number for commit in commits if (number := failed(commit))}
        if not counts:
            return
        self._tasks[title] = counts
        reasons = {task: f"{counted(number, 'failed pair')} tried again" for task, number in counts.items()}
        output.mark_for_retry(reasons | dict.fromkeys(besides, "blocks are tried again"))
        Quarantine(output.root).lift(counts)
        output.reopen()

    def end(self, title: str, output: StageOutput, failed: NumFailed) -> None:
        """Counts what has failed again, once the output is complete."""
        if title in self._tasks:
            counts, commits = self._tasks[title], output.committed()
            num_left = sum(failed(commits[task]) for task in counts)
            self.results[title] = Retried(sum(counts.values()), num_left)


def num_failed(commit: CommitRecord) -> int:
    """How many pairs of a block could not be matched; 0 for a task that is no block."""
    return int(commit.info.get("num_failed", 0))
