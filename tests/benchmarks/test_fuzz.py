"""The fuzz harness finds a reader that raises, one that ends its process, and one that hangs."""

from __future__ import annotations

import json
import os
import time
from random import Random
from typing import TYPE_CHECKING

import pytest

from benchmarks.fuzz import harness, trial
from benchmarks.fuzz.mutations import MAX_BYTES, mutated
from benchmarks.fuzz.readers import READERS, Reader
from dhpf.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def test_mutations_are_what_the_seed_says_and_never_too_long() -> None:
    corpus = [b"abc" * 40_000, b"{}"]
    first, again = ([mutated(Random(seed), corpus) for seed in range(300)] for _ in range(2))
    assert first == again and len(set(first)) > 200
    assert max(map(len, first)) <= MAX_BYTES


@pytest.mark.parametrize("name", READERS)
def test_every_reader_reads_its_seeds(name: str, tmp_path: Path) -> None:
    reader = READERS[name]()
    for seed in reader.seeds:
        reader.read(seed, tmp_path)


def test_what_a_reader_must_not_raise_is_a_finding(tmp_path: Path) -> None:
    def read(data: bytes, folder: Path) -> None:
        raise (InputError if data else KeyError)("x")

    findings = tmp_path / "findings"
    assert trial._outcome(read, b"1", tmp_path, findings) == "" and not findings.exists()
    assert trial._outcome(read, b"", tmp_path, findings).startswith("KeyError in test_fuzz.py")
    assert json.loads(findings.read_text())["input"] == ""


@pytest.mark.parametrize("ends", [True, False])
def test_a_process_that_ends_or_hangs_is_a_finding_with_its_input(
    ends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial's process is this one's child, so that it has the reader that is put in here."""

    def read(data: bytes, folder: Path) -> None:
        if data != b"seed":
            os._exit(7) if ends else time.sleep(60)

    monkeypatch.setitem(trial.READERS, "odd", lambda: Reader([b"seed"], read))  # type: ignore[index]
    monkeypatch.setattr(harness, "LONGEST_READ_SECONDS", 2.0)
    shared = tmp_path / "shared"
    shared.write_bytes(bytes(trial.FILE_BYTES))
    child = os.fork()
    if not child:
        trial.run("odd", 1, 30, shared, tmp_path / "findings")
        os._exit(0)
    process = _Child(child)
    assert harness._watch(process, shared) is not ends  # type: ignore[arg-type]
    seen, data = trial.read_watched(shared.read_bytes())
    assert seen.count >= 1 and data != b"seed"


class _Child:
    """A forked process as subprocess shows one."""

    def __init__(self, pid: int) -> None:
        self._pid, self.returncode = pid, None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def kill(self) -> None:
        os.kill(self._pid, 9)

    def wait(self) -> None:
        while self.poll() is None:
            time.sleep(0.05)
