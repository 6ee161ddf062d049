"""A storm over the local cluster: at random times it ends or stops processes that are at work, by their ids.

The seed decides which kinds of strikes come, in which order and after which pauses; which process a strike meets is
drawn by the seed, too, but from those that are there then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

import psutil

from infra.local_cluster.cluster import Cluster
from infra.local_cluster.machine import Machine

Kind = Literal["worker", "driver", "raylet", "store", "stop"]

SHARES: Mapping[Kind, float] = {"worker": 0.6, "driver": 0.1, "raylet": 0.06, "store": 0.24}
"""Of the processes that are ended; stops come on top. A lost machine costs the most time, a lost server the least."""

NOT_AT_WORK = (
    *("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::JobSupervisor"),
    *("ray::examine_machine", "ray::sees"),
)
"""Names of Ray's processes, and of ours before a run begins, beside those that do a run's work."""

STOPPED_SECONDS = (3.0, 25.0)
"""A stopped process goes on after some time between these."""


AWAY_SECONDS = (0.0, 5.0)
"""A store that was ended is started again after some time between these."""

POLL_SECONDS = 0.4


def deck(random: Random, kills: int, stops: int) -> list[Kind]:
    """The kinds of all strikes, shuffled; each kind at least once."""
    counted: dict[Kind, int] = {kind: max(1, round(kills * share)) for kind, share in SHARES.items()}
    counted["worker"] = max(0, kills - sum(number for kind, number in counted.items() if kind != "worker"))
    kinds: list[Kind] = [kind for kind, number in {**counted, "stop": stops}.items() for _ in range(number)]
    random.shuffle(kinds)
    return kinds


@dataclass
class Storm:
    """Strikes a cluster until its deck is empty or it is told to end.

    For each of our processes that it strikes, it owes every control a strike of the same kind at a process of its own,
    and does it as soon as there is one. Controls need no S3 server: for that they lose a worker. A raylet takes the
    controls' workers of its machine with it.

    Attributes:
        driver: a word that the command line of our drivers has.
        controls: names of the controls, which are words of their drivers' command lines and their tasks' names.
        pause: mean seconds between two strikes; the pauses are drawn exponentially.
        seconds: after so many it ends, even if strikes are left.
        strikes: what it has done to ours: seconds since its beginning, kind, machine, process.
        control_strikes: how often it has met each control.
    """

    cluster: Cluster
    seed: int
    kinds: Sequence[Kind]
    driver: str
    controls: Sequence[str]
    pause: float
    seconds: float
    strikes: list[tuple[float, Kind, str, str]] = field(default_factory=list)
    control_strikes: Counter[str] = field(default_factory=Counter)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._random = Random(self.seed)
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._strike_all, daemon=True)
        self._debts: dict[str, list[Kind]] = {name: [] for name in self.controls}
        self._payers = [threading.Thread(target=self._pay, args=(name,), daemon=True) for name in self.controls]
        self._waking: list[threading.Thread] = []

    def begin(self) -> None:
        """Lets the storm begin."""
        self._began = time.monotonic()
        for thread in (self._thread, *self._payers):
            thread.start()

    def end(self) -> None:
        """Ends it, and waits until all that was stopped goes on and the store is there."""
        self._ended.set()
        for thread in (self._thread, *self._payers, *self._waking):
            thread.join()

    def settle(self, seconds: float) -> None:
        """Waits until the controls were struck as often as our processes were, for so long at most."""
        deadline = time.monotonic() + seconds
        while any(self._debts.values()) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    @property
    def is_over(self) -> bool:
        """Whether all strikes of the deck are done, or its time is."""
        return not self._thread.is_alive()

    @property
    def counts(self) -> Counter[Kind]:
        """How many strikes there were so far."""
        return Counter(kind for _, kind, _, _ in self.strikes)

    def _is_time(self) -> bool:
        return not self._ended.is_set() and time.monotonic() < self._began + self.seconds

    def _strike_all(self) -> None:
        for kind in self.kinds:
            self._ended.wait(self._random.expovariate(1 / self.pause))
            while self._is_time() and not self._struck(kind):
                self._ended.wait(POLL_SECONDS)

    def _struck(self, kind: Kind) -> bool:
        """Ends or stops a process of the kind; false where none is at work.

        Machines and the store are struck while a worker of ours is at work, and workers mostly within a block.
        """
        workers = self._ours("worker")
        if kind in ("worker", "stop"):
            in_blocks = [each for each in workers if _words(each[1])[0].endswith(".work")]
            ours = in_blocks if self._random.random() < 0.8 else workers
        else:
            ours = self._ours(kind) if workers or kind == "driver" else []
        if not ours or not self._hit(kind, *self._random.choice(ours)):
            return False
        for debts in self._debts.values() if kind != "raylet" else ():
            debts.append("worker" if kind == "store" else kind)
        return True

    def _pay(self, name: str) -> None:
        """Strikes a control until the storm ends, as often as our processes were struck."""
        debts = self._debts[name]
        while not self._ended.wait(POLL_SECONDS):
            if debts and self._hit_control(name, debts[0]):
                del debts[0]

    def _hit_control(self, name: str, kind: Kind) -> bool:
        on_machines = (process for machine in self._machines(kind) for process in _processes(machine))
        there = [process for process in on_machines if _is_of_control(name, kind, process)]
        if not there:
            return False
        process = self._random.choice(there)
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGSTOP if kind == "stop" else signal.SIGKILL)
            self.control_strikes[name] += 1
            if kind == "stop":
                self._later(self._random.uniform(*STOPPED_SECONDS), process.pid)
            return True
        return False

    def _ours(self, kind: Kind) -> list[tuple[Machine, psutil.Process]]:
        return [
            (machine, process)
            for machine in self._machines(kind)
            for process in _processes(machine)
            if self._is_ours(kind, process)
        ]

    def _machines(self, kind: Kind) -> list[Machine]:
        machines = self.cluster.machines
        return {"driver": [machines["head"]], "store": [machines["storage"]]}.get(kind, self.cluster.workers)

    def _is_ours(self, kind: Kind, process: psutil.Process) -> bool:
        words = _words(process)
        if kind in ("worker", "stop"):
            foreign = (*NOT_AT_WORK, *(f"ray::{name}" for name in self.controls))
            return words[0].startswith("ray::") and not words[0].startswith(foreign)
        if kind == "driver":
            return self.driver in words and words[0].endswith("python")
        return _name(process) == {"raylet": "raylet", "store": "weed"}[kind]

    def _hit(self, kind: Kind, machine: Machine, process: psutil.Process) -> bool:
        try:
            name = process.cmdline()[0].split("/")[-1]
            process.send_signal(signal.SIGSTOP if kind == "stop" else signal.SIGKILL)
        except (psutil.Error, IndexError):  # ended by itself meanwhile
            return False
        self.strikes.append((round(time.monotonic() - self._began, 1), kind, machine.name, name))
        print(f"  {self.strikes[-1][0]:6.1f} s  {kind} on {machine.name}: {name}", flush=True)
        if kind == "stop":
            self._later(self._random.uniform(*STOPPED_SECONDS), process.pid)
        elif kind == "store":
            self._restart_store(machine)
        return True

    def _later(self, seconds: float, pid: int) -> None:
        def wake() -> None:
            self._ended.wait(seconds)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

        self._waking.append(threading.Thread(target=wake, daemon=True))
        self._waking[-1].start()

    def _restart_store(self, machine: Machine) -> None:
        while machine.pids():
            time.sleep(0.1)
        self._ended.wait(self._random.uniform(*AWAY_SECONDS))
        self.cluster.start(machine.name)


def _processes(machine: Machine) -> list[psutil.Process]:
    found = []
    for pid in sorted(machine.pids()):
        with contextlib.suppress(psutil.Error):
            found.append(psutil.Process(pid))
    return found


def _words(process: psutil.Process) -> list[str]:
    """The command line of a process; one empty word if it has ended."""
    try:
        return process.cmdline() or [""]
    except psutil.Error:
        return [""]


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return ""


def _is_of_control(name: str, kind: Kind, process: psutil.Process) -> bool:
    words = _words(process)
    return name in words and words[0].endswith("python") if kind == "driver" else words[0].startswith(f"ray::{name}")
