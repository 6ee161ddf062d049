from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dhpf.errors import InputError
from dhpf.pipelines.outputs import lease
from dhpf.pipelines.outputs.lease import JOB_VARIABLE, held_lease, require_free
from dhpf.storage import Location, location_of

if TYPE_CHECKING:
    from infra.s3_server import Bucket


@pytest.fixture(params=["folder", "bucket"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket) -> Location:
    return location_of(str(tmp_path / "run") if request.param == "folder" else bucket.uri("run"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWED_SECONDS", 0.1)
    monkeypatch.setattr(lease, "GIVEN_UP_SECONDS", 1.5)


def keys(folder: Location) -> list[str]:
    return [entry.key for entry in folder.entries(hidden=True)]


def left_by_a_dead_driver(folder: Location, job: str, number: int = 1) -> None:
    content = {"job": job, "host": "lost", "token": "t"}
    assert (folder / "lease" / f"{number:06}.json").put_if_absent(json.dumps(content).encode())
    (folder / "lease" / f"{number:06}.renewals").put(b"7")


def test_a_driver_that_is_no_job_needs_none(folder: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(JOB_VARIABLE, raising=False)
    with held_lease(folder):
        assert keys(folder) == []


def test_while_it_is_held_no_other_job_drives_the_run(
    folder: Location, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    monkeypatch.setenv(JOB_VARIABLE, "run-aaa-3")
    with held_lease(folder):
        for other in ("run-bbb-0", "run-aaa-2", "run-aaa", "other-aaa-4"):
            with pytest.raises(InputError, match="job run-aaa-3 on .* drives this run; wait for it, stop it"):
                require_free(folder, other)
        require_free(folder, "run-aaa-3")  # that one can be joined
        with pytest.raises(InputError, match="job run-aaa-3"), held_lease(folder):
            pass  # but there is only one driver, also of a job whose id another cluster gave again
    assert keys(folder) == []
    require_free(folder, "run-bbb-0")


def test_a_dead_drivers_lease_is_taken_over(folder: Location, monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    left_by_a_dead_driver(folder, "run-bbb-0")
    monkeypatch.setenv(JOB_VARIABLE, "run-aaa-0")
    began = time.monotonic()
    with held_lease(folder):
        assert time.monotonic() - began >= 1.5, "it was watched for so long"
        assert "lease/000002.json" in keys(folder)
    assert keys(folder) == []


def test_a_later_attempt_of_the_same_does_not_wait(
    folder: Location, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    left_by_a_dead_driver(folder, "run-aaa-0", number=4)
    monkeypatch.setattr(lease, "GIVEN_UP_SECONDS", 60.0)
    monkeypatch.setenv(JOB_VARIABLE, "run-aaa-1")
    began = time.monotonic()
    with held_lease(folder):
        assert time.monotonic() - began < 10
    assert keys(folder) == []


def test_a_driver_that_was_silent_for_too_long_says_that_it_was_replaced(
    folder: Location, monkeypatch: pytest.MonkeyPatch, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(JOB_VARIABLE, "run-aaa-0")
    with caplog.at_level(logging.WARNING), held_lease(folder):
        left_by_a_dead_driver(folder, "run-bbb-0", number=2)
        deadline = time.monotonic() + 30
        while "taken this run over" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)
    assert "taken this run over" in caplog.text
    assert keys(folder) == ["lease/000002.json", "lease/000002.renewals"], "the other's stays"


def test_of_many_at_once_one_drives(folder: Location, monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    monkeypatch.setenv(JOB_VARIABLE, "run-aaa-0")
    monkeypatch.setattr(lease, "GIVEN_UP_SECONDS", 10.0)
    drivers, refused, ended = [], [], threading.Event()

    def drive() -> None:
        try:
            with held_lease(folder):
                drivers.append(1)
                ended.wait(60)
        except InputError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=drive) for _ in range(6)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while len(refused) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    ended.set()
    for thread in threads:
        thread.join(timeout=30)
    assert (len(drivers), len(refused)) == (1, 5)
