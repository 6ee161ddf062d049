"""What the driver sees of work that goes on in workers: a progress bar, and results."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import ray
from ray.exceptions import RayTaskError
from tqdm import tqdm

from dhpf.errors import InputError

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
    """A board to hand to a worker; what is written on it is drawn as a bar until the block ends."""
    board = ray.remote(num_cpus=0)(ProgressBoard).remote()
    ended = threading.Event()
    drawer = threading.Thread(target=_draw, args=(board, unit, ended), daemon=True)
    drawer.start()
    try:
        yield board
    finally:
        ended.set()
        drawer.join()


def _draw(board: Any, unit: str, ended: threading.Event) -> None:
    bar: tqdm[NoReturn] | None = None
    shown = ""
    while not ended.wait(POLL_SECONDS):
        title, done, total = ray.get(board.read.remote())
        if not total:
            continue
        name = title.partition(",")[0]
        if bar is None or name != shown:
            _close(bar)
            bar, shown = tqdm(total=total, unit=unit), name
        bar.set_description(title, refresh=False)
        bar.update(done - bar.n)
    _close(bar)


def _close(bar: tqdm[NoReturn] | None) -> None:
    if bar is not None:
        bar.update((bar.total or bar.n) - bar.n)
        bar.close()
