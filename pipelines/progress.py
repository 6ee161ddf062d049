"""What a run shows of its work: what is being done, for how long, and how far it is.

On a terminal these are bars and clocks that are drawn over; elsewhere, as in a log file, lines every few seconds. Both
are shown where the logger "dhpf" takes messages of level INFO, as the command line has it do without `--quiet`.
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

LINE_SECONDS = 5.0
"""Between two lines of the same work where there is no terminal."""

_log = logging.getLogger("dhpf.progress")


class CountedWork:
    """How far some work is; a context that shows it until it ends.

    Args:
        title: what is done.
        unit: what is counted, such as "pair".
        total: how many there are; None where that is not known.
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
            self._display.add_task(self.title, total=self.total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display is not None:
            self._display.stop()
        elif self.done:
            self._say()

    def update(self, number: int, note: str = "") -> None:
        """Counts what has been done since the last time, and says something besides."""
        self.done += number
        if self._display is not None:
            title = f"{self.title}, {note}" if note else self.title
            self._display.update(self._display.task_ids[0], completed=self.done, description=title)
        elif time.monotonic() - self._said >= LINE_SECONDS:
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
    """Says what is being done while nothing of it can be counted, and how long it took."""
    started = time.monotonic()
    if _log.isEnabledFor(logging.INFO) and sys.stderr.isatty():
        with _display(TimeElapsedColumn()) as display:
            display.add_task(what, total=None)
            yield
        return
    _log.info("%s ...", what)
    yield
    _log.info("%s: %.1f s", what, time.monotonic() - started)


def _display(*columns: ProgressColumn) -> Progress:
    return Progress(SpinnerColumn(), TextColumn("{task.description}"), *columns, console=Console(stderr=True))
