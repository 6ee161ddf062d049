"""The storm's workload on this machine alone: over a store that fails and spoils, in places that fill up or refuse.

Each case is a command that a user would give, and what came of it; the rows are compared with an undisturbed run.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.chaos.accounts import Row, account, listing, stored_rows
from benchmarks.chaos.workload import STAGES, WORKFLOW, Size, made_image, workflow_text
from dhpf.storage import location_of
from infra.flaky_proxy import Fault, flaky_proxy
from infra.local_cluster.machine import PROJECT
from infra.s3_server import Bucket, served_bucket

YEAR_SECONDS = 365 * 24 * 3600
RUN_SECONDS = 1800

FULL_BYTES = 1_500_000
"""Of the work folder's disk: its plan and the first three shards fit, of 0.4 MB each, and not all five."""

STORE_FAULTS: Mapping[str, Mapping[Fault, float]] = {
    "503 before, 500 after it was done": {"refused": 0.08, "done and refused": 0.08},
    "no answer": {"stalled": 0.01, "done and stalled": 0.01},
    "bodies cut": {"cut": 0.2},
    "bits flipped in contents": {"flipped": 0.15},
}
"""Shares of the requests, by what a report calls them; none of them may end a run."""

ALL_AT_ONCE: Mapping[Fault, float] = {
    "refused": 0.04,
    "done and refused": 0.04,
    "stalled": 0.003,
    "done and stalled": 0.003,
    "cut": 0.1,
    "flipped": 0.1,
}


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status, and the last sentence that it said."""

    status: int
    sentence: str


@dataclass(frozen=True)
class PrivateRuns:
    """Runs of the workload with a Ray of their own.

    Attributes:
        folder: with the data, the workflow file, and MLflow's stores.
    """

    folder: Path

    def run(self, work: str, **environment: str) -> Ended:
        """Runs the workload once."""
        words = [sys.executable, "-m", "dhpf.pipelines", "run", WORKFLOW, "--file", str(self.folder / "storm.yaml")]
        words += ["--work", work, "--data", str(self.folder / "data"), "--quiet"]
        words += ["--tracking", f"sqlite:///{self.folder}/mlflow.db"]
        own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        done = subprocess.run(
            words,
            cwd=self.folder,
            env={**own, "PYTHONPATH": str(PROJECT), "RAY_worker_niceness": "0", **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_SECONDS,
        )
        said = [line for line in done.stderr.splitlines() if line.startswith("dhpf: ")]
        print(f"  exit status {done.returncode}: {said[-1] if said else done.stderr[-300:].strip()}", flush=True)
        return Ended(done.returncode, said[-1].removeprefix("dhpf: ") if said else "")


def prepared(folder: Path, size: Size) -> PrivateRuns:
    """Puts images and the workflow file into a folder."""
    (folder / "data" / "made").mkdir(parents=True)
    for number in range(size.images):
        (folder / "data" / "made" / f"{number:03}.png").write_bytes(made_image(number))
    (folder / "storm.yaml").write_text(workflow_text(size))
    return PrivateRuns(folder)


def undisturbed(runs: PrivateRuns) -> list[Row]:
    """The rows of a run that nothing disturbs."""
    ended = runs.run(str(runs.folder / "calm"))
    assert ended.status == 0, ended
    return list(stored_rows(location_of(runs.folder / "calm" / WORKFLOW), STAGES))


def store_cases(runs: PrivateRuns, expected: Sequence[Row], *, is_short: bool) -> list[dict[str, Any]]:
    """A run over each of the store's faults, or over all of them at once; each must end, and be exact."""
    keys = {"accessKey": "owner", "secretKey": secrets.token_hex(16)}
    os.environ |= {"AWS_ACCESS_KEY_ID": keys["accessKey"], "AWS_SECRET_ACCESS_KEY": keys["secretKey"]}
    (runs.folder / "s3").mkdir()
    chosen = {"all of these at once": ALL_AT_ONCE} if is_short else STORE_FAULTS
    with served_bucket("chaos", keys, runs.folder / "s3") as bucket:
        return [_store_case(runs, bucket, f"case{n}", *each, expected) for n, each in enumerate(chosen.items())]


def _store_case(
    runs: PrivateRuns, bucket: Bucket, name: str, what: str, shares: Mapping[Fault, float], expected: Sequence[Row]
) -> dict[str, Any]:
    endpoint = bucket.query.partition("endpoint_override=")[2].partition("&")[0]
    print(what, flush=True)
    with flaky_proxy(endpoint, shares) as (proxied, failures):
        ended = runs.run(bucket.uri(name).replace(endpoint, proxied))
    found = account(expected, stored_rows(location_of(bucket.uri(name)) / WORKFLOW, STAGES))
    print(f"{what}: {failures.counts}, {found}", flush=True)
    assert ended.status == 0 and found.is_exact, (ended, found)
    return _case(what, dict(failures.counts), 1, "the same results", found)


def place_cases(runs: PrivateRuns, expected: Sequence[Row]) -> list[dict[str, Any]]:
    """A disk that fills up, then has room again a year later; and one that may not be written."""
    small = runs.folder / "small"
    small.mkdir()
    with _mounted(small, f"size={FULL_BYTES}"):
        print("a full disk", flush=True)
        full = runs.run(str(small))
        kept = len(list((small / WORKFLOW).rglob("commits/*.json")))
        assert full.status == 2 and str(small) in full.sentence, full
        subprocess.run(["mount", "-o", "remount,size=100m", str(small)], check=True)
        print(f"room again, a year later; {kept} blocks were done", flush=True)
        later = runs.run(str(small), **_a_year_ahead(runs.folder))
        run = location_of(small / WORKFLOW)
        found = account(expected, stored_rows(run, STAGES))
        assert later.status == 0 and found.is_exact and kept, (later, found, kept)
        before = listing(run, STAGES)
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        print("a read-only disk", flush=True)
        refused = runs.run(str(small))
        assert refused.status == 2 and str(small) in refused.sentence, refused
        assert listing(run, STAGES) == before
    sentence = full.sentence.replace(str(small), "WORK")
    return [
        _case("a work folder of 1.5 MB that fills up", {}, 1, f"`{sentence}`; {kept} blocks were done", None),
        _case("the same with room, the clock a year ahead", {}, 1, "went on, the same results", found),
        _case("the same, read-only", {}, 1, f"`{refused.sentence.replace(str(small), 'WORK')}`", None),
    ]


def _case(what: str, times: Mapping[str, int], commands: int, outcome: str, found: Any) -> dict[str, Any]:
    nothing = {"expected": "", "lost": 0, "doubled": 0, "corrupt": 0}
    counts = ", ".join(f"{number} {name}" for name, number in times.items()) or 1
    rows = nothing if found is None else asdict(found)
    return {"what": what, "times": counts, "commands": commands, "outcome": outcome, "rows": rows}


@contextlib.contextmanager
def _mounted(folder: Path, options: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


CLOCK = """
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = syscall(SYS_clock_gettime, clock, now);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += AHEAD;
  return failed;
}
int gettimeofday(struct timeval *now, void *zone) {
  struct timespec precise;
  int failed = clock_gettime(CLOCK_REALTIME, &precise);
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return failed;
}
time_t time(time_t *now) {
  struct timespec precise;
  clock_gettime(CLOCK_REALTIME, &precise);
  if (now) *now = precise.tv_sec;
  return precise.tv_sec;
}
"""
"""What a process has as its clock; only that of the wall is moved."""


def _a_year_ahead(folder: Path) -> dict[str, str]:
    """The environment of a process, and of all that it starts, whose clock of the wall is a year ahead."""
    (folder / "clock.c").write_text(CLOCK)
    words = ["cc", "-shared", "-fPIC", f"-DAHEAD={YEAR_SECONDS}", "-o", "clock.so", "clock.c"]
    subprocess.run(words, cwd=folder, check=True)
    shown = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"],
        env={**os.environ, "LD_PRELOAD": str(folder / "clock.so")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert abs(float(shown.stdout) - time.time() - YEAR_SECONDS) < 600, "the clock does not move"
    return {"LD_PRELOAD": str(folder / "clock.so")}
