"""What is shown of work where there is no terminal: lines, and none unless somebody asked for them."""

from __future__ import annotations

import logging

import pytest

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


def test_nobody_who_did_not_ask_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="dhpf"), doing("x"), CountedWork("y", "pair") as work:
        work.update(1)
    assert caplog.messages == []
