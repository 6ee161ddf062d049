"""Progress of work, shown as log lines where there is no terminal, and not at all unless the log is on."""

from __future__ import annotations

import io
import logging
import re
import sys

import pytest

from dhpf.errors import InputError
from dhpf.pipelines import progress
from dhpf.pipelines.progress import CountedWork, doing


def test_counted_work_is_lines_every_few_seconds_and_one_at_its_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 6.0, 7.0, 12.0, 12.0, 13.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO, logger="dhpf"), CountedWork("match photos", "pair", 1200) as work:
        work.update(300)  # 1 second has passed
        work.update(300, "2 failed")  # 6 seconds
        work.update(600)
    assert caplog.messages[0] == "match photos: 600 of 1,200 pairs, 7 s, 2 failed"
    assert caplog.messages[-1].startswith("match photos: 1,200 of 1,200 pairs, ")
    assert len(caplog.messages) in (2, 3) and not any("\r" in message for message in caplog.messages)


def test_what_cannot_be_counted_is_named_with_its_time(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="dhpf"), doing("starting Ray"):
        assert caplog.messages == ["starting Ray ..."]
    assert caplog.messages[1].startswith("starting Ray: ") and caplog.messages[1].endswith(" s")


def test_what_fails_says_so_in_its_last_line(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, logger="dhpf"),
        pytest.raises(InputError, match="no such folder"),
        doing("planning the pairs of photos"),
    ):
        raise InputError("no such folder")
    _, last = caplog.messages
    assert re.fullmatch(r"planning the pairs of photos: failed after \d+\.\d s", last)


def as_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Makes the error stream that of a terminal of 200 columns; within a test, because pytest sets it before each."""
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    return terminal


def test_on_a_terminal_what_fails_says_so_too(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = as_terminal(monkeypatch)
    with caplog.at_level(logging.INFO, logger="dhpf"):
        with doing("starting Ray"):
            pass
        with pytest.raises(InputError), doing("planning"):
            raise InputError("no such folder")
    assert "starting Ray" in terminal.getvalue() and "starting Ray: failed" not in terminal.getvalue()
    assert "planning: failed" in terminal.getvalue() and caplog.messages == []


def test_a_terminal_obeys_nothing_of_what_is_being_done(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = as_terminal(monkeypatch)
    hostile = "[red]a\x1b]0;owned\x07\x9b2J"
    with caplog.at_level(logging.INFO, logger="dhpf"):
        with CountedWork(hostile, "pair", 1) as work:
            work.update(1, hostile)
        with pytest.raises(InputError), doing(hostile):
            raise InputError("no such folder")
    said = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())  # rich's own moves and colours
    assert not set("\x1b\x07\x9b") & set(said)
    assert said.count("[red]a\\u001b]0;owned\\u0007\\u009b2J") >= 3
    assert "[red]a\\u001b]0;owned\\u0007\\u009b2J: failed" in said


def test_nobody_who_did_not_ask_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="dhpf"), doing("x"), CountedWork("y", "pair") as work:
        work.update(1)
    assert caplog.messages == []
