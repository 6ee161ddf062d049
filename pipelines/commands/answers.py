"""Prints a command's answer, as JSON for programs or as text for people, and names the exit statuses."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TextIO

from dhpf.errors import shown

FAILED = 1
"""Exit status of what ended by an error that nobody foresaw."""

DONE, BAD_INPUT, LEFT_OUT, REFUSED, INTERRUPTED = 0, 2, 3, 4, 130
"""Exit statuses: all is done; input cannot be used; done, but some pairs were rejected or failed; a model version does
not hold what a champion must; interrupted."""

NO_TERMINAL_WIDTH = 10_000
"""Width in columns where the output is no terminal, so that the rows of a table are never wrapped."""


class Unforeseen(Exception):
    """An error that is nobody's input; its message is one sentence for the user."""


@dataclass(frozen=True)
class Answer:
    """Prints a command's answer.

    Attributes:
        quiet: text for people is left out, and so is the progress of work.
        as_json: facts are printed as JSON, instead of the text.
    """

    quiet: bool = False
    as_json: bool = False

    def __post_init__(self) -> None:
        if self.quiet:
            logging.getLogger("dhpf").setLevel(logging.ERROR)

    def facts(self, value: Any) -> None:
        """Prints the facts, if JSON is wanted."""
        if self.as_json:
            print(shown(json.dumps(value, indent=1, ensure_ascii=False)))

    def text(self, *lines: str) -> None:
        """Prints lines for people."""
        if not self.quiet and not self.as_json:
            for line in lines:
                print(shown(line))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, has_header: bool = True) -> None:
        """Prints a table for people; long cells are wrapped on a terminal only."""
        if self.quiet or self.as_json:
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(width=None if sys.stdout.isatty() else NO_TERMINAL_WIDTH)
        table = Table(*columns, box=None, pad_edge=False, show_header=has_header, header_style="bold")
        for row in rows:
            table.add_row(*(Text(shown(cell)) for cell in row))
        with console.capture() as printed:
            console.print(table)
        for line in printed.get().splitlines():
            print(line.rstrip())


@contextlib.contextmanager
def shown_log() -> Iterator[None]:
    """Shows on the error stream what the project logs, the progress of its work included, until the block ends."""
    logger, handler = logging.getLogger("dhpf"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Shown())
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@contextlib.contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """Lets SIGTERM end the block as Ctrl-C does: leases are given back, Ray's processes end, and the run can go on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Shown(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


def complain(sentence: str) -> None:
    """Prints one sentence on the error stream, as one line: what it quotes cannot begin another."""
    print(shown(f"dhpf: {sentence}").replace("\n", "\\n"), file=sys.stderr)


def pass_on(text: str, stream: TextIO) -> None:
    """Prints a piece of what another process has said, at once."""
    print(shown(text), end="", file=stream, flush=True)


def show_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints an error that nobody caught, as sys.excepthook."""
    pass_on("".join(traceback.format_exception(kind, error, trace)), sys.stderr)
