"""A storm without Ray, cheap enough for hundreds of kills: forked processes shard blocks and are ended at any moment.

The stage's own code plans, shards, commits and finishes; only the pool of actors is another, of forked processes. It
kills and stops some of them. The driver is killed, too, and what it had started goes on and writes beside the next
driver's processes. The same pool has the controls write.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import dhpf.pipelines.stages.shard as stage
from benchmarks.chaos.accounts import Row, account, listing, stored_rows
from benchmarks.chaos.control import control_job
from benchmarks.chaos.controls import CONTROLS, control_account
from dhpf.manifest import CommitRecord
from dhpf.pipelines.blocks.caution import Caution
from dhpf.pipelines.blocks.pool import BlockWork
from dhpf.pipelines.config import ShardConfig, SourceConfig
from dhpf.storage import Location, location_of

AT_ONCE = 3
KILLED, STOPPED, DRIVERS_KILLED = 0.75, 0.04, 0.06
"""Shares of the processes that are killed or stopped, and of their drivers that are killed after each."""

PR_SET_CHILD_SUBREAPER = 36
"""Of prctl: what a killed driver had begun becomes this process's child, and so can be waited for."""

STAGES = ("shard",)
NUM_BLOCKS = 20
CONFIG = ShardConfig(
    sources={"warps": SourceConfig(kind="photo_warps", splits=("test",), options={"views": 4, "keypoints": 6})},
    max_pairs=1,
)


@dataclass(frozen=True)
class Strikes:
    """Draws which processes are struck, and notes it in a folder that outlasts their driver.

    Attributes:
        folder: with an empty file for each strike.
        seed: of this driver.
        longest: seconds after which a process is struck, at most; 0 for no strikes.
    """

    folder: Path
    seed: str
    longest: float

    def on_worker(self, random: Random) -> str:
        """What becomes of the next process: "worker" (it is killed), "stop", or nothing."""
        drawn = random.random()
        fate = "worker" if drawn < KILLED else "stop" if drawn < KILLED + STOPPED else ""
        return fate if self.longest else ""

    def is_on_driver(self, random: Random) -> bool:
        """Whether the driver is killed now."""
        return bool(self.longest) and random.random() < DRIVERS_KILLED

    def note(self, kind: str) -> None:
        """Counts a strike."""
        (self.folder / f"{kind}-{time.monotonic_ns()}-{os.getpid()}").touch()


@dataclass(frozen=True)
class Struck:
    """How many drivers some work took, and its strikes by kind."""

    drivers: int
    strikes: Counter[str]


def done_by_forks(tasks: Iterable[Any], work: Callable[[Any], object], strikes: Strikes) -> Generator[Any]:
    """Has a process of its own do each task, some at once; yields each task that a process has ended well."""
    waiting, at_work, again = iter(tasks), dict[int, Any](), list[Any]()
    random = Random(strikes.seed)
    while True:
        while len(at_work) < AT_ONCE:
            task = again.pop() if again else next(waiting, None)
            if task is None:
                break
            pid = forked(partial(work, task))
            at_work[pid] = task
            fate = strikes.on_worker(random)
            if fate:
                time.sleep(random.uniform(0, strikes.longest))
                os.kill(pid, signal.SIGSTOP if fate == "stop" else signal.SIGKILL)
            if fate == "stop" and _is_alive(pid):  # it goes on beside the process that takes its task
                strikes.note("stop")
                again.append(task)
                forked(partial(_wake, pid, random.uniform(0.2, 1)))
        if not at_work:
            return
        pid, status = os.waitpid(-1, 0)
        task = at_work.pop(pid, None)
        if task is None:  # it has woken another
            continue
        if status == 0:
            yield task
        else:
            again.append(task)
            if status == signal.SIGKILL:  # others had ended before it came
                strikes.note("worker")
        if strikes.is_on_driver(random):
            strikes.note("driver")
            os.kill(os.getpid(), signal.SIGKILL)


def _is_alive(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _wake(pid: int, seconds: float) -> None:
    time.sleep(seconds)
    os.kill(pid, signal.SIGCONT)


def forked(work: Callable[[], object]) -> int:
    """A process that does this and ends; its id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except BaseException as error:
        print(f"  {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def _sharded(folder: Location, strikes: Strikes) -> None:
    """The shard stage, with a pool of forked processes."""

    def do_blocks(works: Sequence[BlockWork[Any]], *_: object, **__: object) -> Generator[tuple[int, CommitRecord]]:
        [blocks] = works
        done = set[str]()
        worker = blocks.settings.worker()
        for job in done_by_forks(blocks.jobs, lambda job: worker.work(job, Caution({})), strikes):
            commit = blocks.output.commit_of(job.task)
            assert commit is not None, job.task
            if job.task not in done:  # a stopped process and the one that took its task may both end well
                done.add(job.task)
                blocks.output.note(commit)
                yield 0, commit

    vars(stage)["do_blocks"] = do_blocks
    stage.shard(CONFIG, folder)


def _control(name: str, folder: Path, strikes: Strikes) -> None:
    """A control, whose driver notes which tasks were done."""
    control_job.ROW_SECONDS = strikes.longest / control_job.ROWS / 2
    done = folder / "done"
    done.mkdir(exist_ok=True)
    tasks = [task for task in range(NUM_BLOCKS) if not (done / str(task)).exists()]
    for task in done_by_forks(tasks, partial(control_job.WRITERS[name], str(folder)), strikes):
        (done / str(task)).touch()


def _until_done(folder: Path, seed: str, longest: float, work: Callable[[Strikes], None]) -> Struck:
    """Forks a driver that does the work, and another whenever it was killed; waits for all that these have begun."""
    folder.mkdir(parents=True)
    for number in itertools.count(1):
        strikes = Strikes(folder, f"{seed}-{number}", longest)
        status = os.waitpid(forked(partial(work, strikes)), 0)[1]
        if status == 0:
            break
        assert status == signal.SIGKILL, f"a driver ended with {status}"
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    return Struck(number, Counter(path.name.partition("-")[0] for path in folder.iterdir()))


def forked_rounds(seed: int, kills: int) -> Generator[dict[str, Any]]:
    """Rounds of the storm until there were so many kills, each with its account; see kill_storm.measure."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory(prefix="forked-") as name:
        top = Path(name)
        _until_done(top / "none", "calm", 0, partial(_sharded, location_of(top / "calm" / "shard")))
        longest = _seconds_of_blocks(top / "calm" / "shard")
        expected = _rows(top / "calm")
        total = 0
        for number in itertools.count(1):
            figures = _round(top / f"round{number}", f"{seed}-{number}", longest, expected)
            total += figures["strikes"]["worker"] + figures["strikes"]["driver"]
            print(f"forked round {number}: {figures}", flush=True)
            yield {"seed": seed, **figures}
            if total >= kills:
                return


def _round(top: Path, seed: str, longest: float, expected: Sequence[Row]) -> dict[str, Any]:
    began = time.monotonic()
    run = top / "run"
    sharded = partial(_sharded, location_of(run / "shard"))
    struck = _until_done(top / "strikes", seed, longest, sharded)
    controls = dict[str, Any]()
    for name in CONTROLS:
        (top / name).mkdir()
        met = _until_done(top / f"strikes-{name}", seed, longest, partial(_control, name, top / name))
        controls[name] = {"strikes": met.strikes.total(), **asdict(control_account(top / name))}
    before = listing(location_of(run), STAGES)
    _until_done(top / "again", seed, 0, sharded)
    return {
        "strikes": {kind: struck.strikes[kind] for kind in ("worker", "driver", "stop")},
        "seconds": round(time.monotonic() - began, 1),
        "submits": struck.drivers,
        "rows": asdict(account(expected, _rows(run))),
        "rerun_wrote_nothing": bool(before) and listing(location_of(run), STAGES) == before,
        "controls": controls,
    }


def _seconds_of_blocks(stage_folder: Path) -> float:
    """About how long a block takes: the commits of an undisturbed run lie so far apart."""
    times = sorted(path.stat().st_mtime for path in stage_folder.rglob("commits/block*.json"))
    return 0.6 * AT_ONCE * (times[-1] - times[0]) / len(times)


def _rows(run: Path) -> list[Row]:
    return list(stored_rows(location_of(run), STAGES))
