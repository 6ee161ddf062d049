"""What the driver learns from its workers: the result of a task, and how far a training is."""

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


def result_of(reference: Any) -> Any:
    """The result of a task.

    Raises:
        InputError: as the task raised it, without the worker's traceback.
    """
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise error.cause from error
        raise


class ProgressBoard:
    """Holds what a worker last said: a title, and how much of how much is done."""

    def __init__(self) -> None:
        self._state = ("", 0, 0)

    def write(self, title: str, done: int, total: int) -> None:
        """Called by the worker, which does not wait."""
        self._state = (title, done, total)

    def read(self) -> tuple[str, int, int]:
        """Called by the driver."""
        return self._state


@contextlib.contextmanager
def shown_progress(unit: str) -> Iterator[Any]:
    """A board to hand to a worker; what is written on it is shown until the block ends."""
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
    """Each title, up to its first comma, is work of its own; what follows changes while it goes on."""
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
