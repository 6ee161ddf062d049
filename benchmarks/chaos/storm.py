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

SHARES: Mapping[Kind, float] = {"worker": 0.6, "driver": 0.14, "raylet": 0.14, "store": 0.12}
"""Of the processes that are ended; stops come on top."""

NOT_AT_WORK = (
    *("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::JobSupervisor"),
    *("ray::examine_machine", "ray::sees"),
)
"""Names of Ray's processes, and of ours before a run begins, beside those that do a run's work."""

STOPPED_SECONDS = (3.0, 25.0)
"""A stopped process goes on after some time between these."""


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

    A strike at a worker or a driver meets one of ours, and at the same moment one of each control's, where there is.

    Attributes:
        driver: a word that the command line of our drivers has.
        controls: names of the controls, which are words of their drivers' command lines and their tasks' names.
        pause: mean seconds between two strikes; the pauses are drawn exponentially.
        strikes: what it has done to ours: seconds since its beginning, kind, machine, process.
        control_strikes: how often it has met each control.
    """

    cluster: Cluster
    seed: int
    kinds: Sequence[Kind]
    driver: str
    controls: Sequence[str]
    pause: float
    strikes: list[tuple[float, Kind, str, str]] = field(default_factory=list)
    control_strikes: Counter[str] = field(default_factory=Counter)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._random = Random(self.seed)
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._strike_all, daemon=True)
        self._waking: list[threading.Thread] = []

    def begin(self) -> None:
        """Lets the storm begin."""
        self._thread.start()

    def end(self) -> Counter[Kind]:
        """Ends it, and waits until all that was stopped goes on and the store is there; how many strikes there were."""
        self._ended.set()
        self._thread.join()
        for waking in self._waking:
            waking.join()
        return Counter(kind for _, kind, _, _ in self.strikes)

    @property
    def is_over(self) -> bool:
        """Whether all strikes of the deck are done."""
        return not self._thread.is_alive()

    def _strike_all(self) -> None:
        for kind in self.kinds:
            if self._ended.wait(self._random.expovariate(1 / self.pause)):
                return
            self._strike(kind)

    def _strike(self, kind: Kind) -> None:
        """Waits until a process of the kind is at work, and ends or stops it."""
        while not self._ended.is_set():
            there = [(machine, process) for machine in self._machines(kind) for process in _processes(machine)]
            ours = [(machine, process) for machine, process in there if self._is_ours(kind, process)]
            if ours and self._hit(kind, *self._random.choice(ours)):
                for name in self.controls if kind in ("worker", "driver") else ():
                    self._hit_control(name, [process for _, process in there if _is_of_control(name, kind, process)])
                return
            self._ended.wait(0.3)

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

    def _hit_control(self, name: str, processes: Sequence[psutil.Process]) -> None:
        if processes:
            with contextlib.suppress(psutil.Error):
                self._random.choice(processes).kill()
                self.control_strikes[name] += 1

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
        self._ended.wait(self._random.uniform(0, 5))
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
    return words[0].startswith(f"ray::{name}") if kind == "worker" else name in words and words[0].endswith("python")
