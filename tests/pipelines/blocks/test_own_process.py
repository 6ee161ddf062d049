"""A process of its own that is ended, or raises."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from dhpf.manifest import CommitRecord
from dhpf.pipelines.blocks.caution import NO_CAUTION, Caution, Step
from dhpf.pipelines.blocks.own_process import end_of_process
from dhpf.pipelines.blocks.trials import UNSEEN, End, Trials
from dhpf.pipelines.cluster_metrics import StageName
from dhpf.storage import location_of


@dataclass(frozen=True)
class Order:
    """A job that ends its process in the way it says: by a signal, an exit status or an exception."""

    task: str
    num_pairs: int = 1


@dataclass(frozen=True)
class OrderSettings:
    root: str
    stage: StageName = "match"

    def worker(self) -> OrderSettings:
        return self

    def work(self, job: Order, caution: Caution) -> CommitRecord:
        caution.step(Step.of_pair(3))
        if job.task.isdigit():
            os._exit(int(job.task))
        if job.task in signal.Signals.__members__:
            os.kill(os.getpid(), signal.Signals[job.task])
        raise ValueError("a" * 100_000 + "the end")


@pytest.mark.parametrize(
    ("order", "how"),
    [("SIGABRT", "SIGABRT"), ("SIGKILL", "SIGKILL, perhaps for want of memory"), ("7", "exit status 7")],
)
def test_how_a_process_ended_is_said_and_its_last_step_is_noted(order: str, how: str, tmp_path: Path) -> None:
    trials = Trials(location_of(tmp_path))
    trial = trials.new()
    assert end_of_process(OrderSettings(str(tmp_path)), Order(order), NO_CAUTION, trial, 300) == how
    trial.end(how)
    assert trials.ends() == [End(Step.of_pair(3), how)]


def test_an_exception_is_raised_here_however_long_its_text(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="raise, done in a process of its own: a*the end"):
        trial = Trials(location_of(tmp_path)).new()
        end_of_process(OrderSettings(str(tmp_path)), Order("raise"), NO_CAUTION, trial, 300)


def test_a_stopped_process_is_ended_in_time(tmp_path: Path) -> None:
    trials = Trials(location_of(tmp_path))
    how = end_of_process(OrderSettings(str(tmp_path)), Order("SIGSTOP"), NO_CAUTION, trials.new(), 4)
    assert how == "took longer than 4 s"
    assert trials.ends() == [End(Step.of_pair(3), UNSEEN)]
