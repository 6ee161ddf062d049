"""Prints a command's answer, as JSON for programs or as text for people, and names the exit statuses."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dhpf.errors import redacted

DONE, BAD_INPUT, LEFT_OUT, REFUSED, INTERRUPTED = 0, 2, 3, 4, 130
"""Exit statuses: all is done; input cannot be used; done, but some pairs were rejected or failed; a model version does
not hold what a champion must; interrupted."""

NO_TERMINAL_WIDTH = 10_000
"""Width in columns where the output is no terminal, so that the rows of a table are never wrapped."""


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def harmless(text: str) -> str:
    """A text with its control characters written out: names of files may hold them, and no terminal shall obey them."""
    return text.translate(_CONTROLS)


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
            print(redacted(json.dumps(value, indent=1, ensure_ascii=False)))

    def text(self, *lines: str) -> None:
        """Prints lines for people."""
        if not self.quiet and not self.as_json:
            for line in lines:
                print(harmless(redacted(line)))

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
            table.add_row(*(Text(harmless(redacted(cell))) for cell in row))
        with console.capture() as printed:
            console.print(table)
        for line in printed.get().splitlines():
            print(line.rstrip())


@contextlib.contextmanager
def shown_log() -> Iterator[None]:
    """Shows on the error stream what the project logs, the progress of its work included, until the block ends."""
    logger, handler = logging.getLogger("dhpf"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(_WithoutSecrets())
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


class _WithoutSecrets(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def complain(sentence: str) -> None:
    """Prints one sentence on the error stream."""
    print(harmless(f"dhpf: {redacted(sentence)}"), file=sys.stderr)
