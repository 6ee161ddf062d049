"""Shows the progress of work: what is being done, for how long, and how much of it is done.

On a terminal this is a live bar or clock; elsewhere, as in a log file, a line every few seconds. Nothing is shown
unless the logger "dhpf" takes messages of level INFO; the command line sets that level unless `--quiet` is given.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dhpf.errors import shown

LINE_SECONDS = 5.0
"""Least time between two lines about the same work where there is no terminal."""

_log = logging.getLogger("dhpf.progress")


class CountedWork:
    """Shows how much of some work is done, from the beginning to the end of a `with` block.

    Args:
        title: what the work is.
        unit: what is counted, such as "pair".
        total: how many units there are; None where that is not known.
    """

    def __init__(self, title: str, unit: str, total: int | None = None) -> None:
        self.title, self.unit, self.total, self.done = title, unit, total, 0
        self._started = self._said = time.monotonic()
        self._display: Progress | None = None

    def __enter__(self) -> CountedWork:
        if _log.isEnabledFor(logging.INFO) and sys.stderr.isatty():
            counts: tuple[ProgressColumn, ...] = (MofNCompleteColumn(), TextColumn(f"{self.unit}s"))
            self._display = _display(BarColumn(), *counts, TimeElapsedColumn(), TimeRemainingColumn())
            self._display.start()
            self._display.add_task(shown(self.title), total=self.total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display is not None:
            self._display.stop()
        elif self.done:
            self._say()

    def update(self, number: int, note: str = "") -> None:
        """Adds units that are done since the last call.

        Args:
            number: how many.
            note: a remark to show beside the count.
        """
        self.done += number
        if self._display is not None:
            title = f"{self.title}, {note}" if note else self.title
            self._display.update(self._display.task_ids[0], completed=self.done, description=shown(title))
        elif number and time.monotonic() - self._said >= LINE_SECONDS:
            self._say(note)

    def _say(self, note: str = "") -> None:
        self._said = time.monotonic()
        of_total = f" of {self.total:,}" if self.total is not None else ""
        seconds = self._said - self._started
        _log.info(
            "%s: %s%s %ss, %.0f s%s", self.title, f"{self.done:,}", of_total, self.unit, seconds, note and f", {note}"
        )


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """Shows during the block what is being done, for work that has no units to count, and then how long it took.

    If the block raises an error, a last line says that the work failed; what the error is, its catcher says.
    """
    started = time.monotonic()
    if _log.isEnabledFor(logging.INFO) and sys.stderr.isatty():
        with _display(TimeElapsedColumn()) as display:
            task = display.add_task(shown(what), total=None)
            try:
                yield
            except BaseException:
                display.update(task, description=shown(f"{what}: failed"))
                raise
        return
    _log.info("%s ...", what)
    try:
        yield
    except BaseException:
        _log.info("%s: failed after %.1f s", what, time.monotonic() - started)
        raise
    _log.info("%s: %.1f s", what, time.monotonic() - started)


def _display(*columns: ProgressColumn) -> Progress:
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}", markup=False), *columns, console=Console(stderr=True)
    )
