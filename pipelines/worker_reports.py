"""Brings to the driver what Ray workers report: the result of a task, or its error, and the progress of a training."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import RayTaskError

from dhpf.errors import InputError
from dhpf.pipelines.progress import CountedWork

POLL_SECONDS = 1.0
"""Time between two readings of a worker's progress."""


def result_of(reference: Any) -> Any:
    """Waits for a Ray task, and gives its result.

    Raises:
        InputError: the one that the task raised, without Ray's wrapping.
    """
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise error.cause from error
        raise


class ProgressBoard:
    """Ray actor that holds what a worker last reported: a title, the number of units done, and their total."""

    def __init__(self) -> None:
        self._state = ("", 0, 0)

    def write(self, title: str, done: int, total: int) -> None:
        """Called by the worker, which does not wait for the call to end."""
        self._state = (title, done, total)

    def read(self) -> tuple[str, int, int]:
        """Called by the driver."""
        return self._state


@contextlib.contextmanager
def shown_progress(unit: str) -> Iterator[Any]:
    """A ProgressBoard to hand to a worker; what the worker writes on it is shown until the block ends.

    Args:
        unit: what is counted, such as "pair".
    """
    board = ray.remote(num_cpus=0)(ProgressBoard).remote()
    ended = threading.Event()
    shower = threading.Thread(target=_show, args=(board, unit, ended), daemon=True)
    shower.start()
    try:
        yield board
    finally:
        ended.set()
        shower.join()


def _show(board: Any, unit: str, ended: threading.Event) -> None:
    """A title's text before its first comma names the work; the text after it is a remark that changes meanwhile."""
    with contextlib.ExitStack() as stack:
        work: CountedWork | None = None
        while not ended.wait(POLL_SECONDS):
            title, done, total = ray.get(board.read.remote())
            if not total:
                continue
            name, _, note = title.partition(", ")
            if work is None or name != work.title:
                stack.close()
                work = stack.enter_context(CountedWork(name, unit, total))
            work.update(done - work.done, note)
