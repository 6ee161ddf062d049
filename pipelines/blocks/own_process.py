"""Does a block in a process of its own, which may crash or hang without harm to the one that waits for it."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time
import traceback
from dataclasses import replace
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from typing import Any

from dhpf.pipelines.blocks.caution import Caution, Step
from dhpf.pipelines.blocks.trials import TOOK_LONGER, Trial
from dhpf.pipelines.blocks.work import AnyJob, Settings

LONGEST_ERROR = 10_000
"""Characters of a traceback that the process hands on; a pipe holds that much."""


_PR_SET_PDEATHSIG = 1
"""Option of prctl(2): the signal that the kernel sends when the parent ends."""

STARTS_AS_LONG = 10
"""The process may take so many times as long as a step until its first step: it loads a model."""


def end_of_process(
    settings: Settings[AnyJob], job: AnyJob, caution: Caution, trial: Trial, seconds_of_a_step: float
) -> str:
    """Does a job in a new process, which notes each step in the trial.

    Args:
        seconds_of_a_step: how long a step may take; then the process is killed, even if it is stopped.

    Returns:
        how the process ended.

    Raises:
        RuntimeError: it raised an exception instead of being ended.
    """
    context = multiprocessing.get_context("spawn")
    errors, num_steps = context.SimpleQueue(), context.Value("q", 0)
    process = context.Process(target=_work, args=(settings, job, caution, trial, num_steps, errors), daemon=True)
    process.start()
    in_time = _joined_in_time(process, num_steps, seconds_of_a_step)
    if not errors.empty():
        raise RuntimeError(f"{job.task}, done in a process of its own: {errors.get()}")
    return _how(process.exitcode) if in_time else f"{TOOK_LONGER} {seconds_of_a_step:g} s"


def _joined_in_time(process: BaseProcess, num_steps: Synchronized[int], seconds: float) -> bool:
    """Waits until the process has ended; False where it was killed because a step took too long."""
    seen, since = 0, time.monotonic()
    while process.is_alive():
        process.join(min(1.0, seconds / 4))
        if num_steps.get_obj().value != seen:
            seen, since = num_steps.get_obj().value, time.monotonic()
        elif time.monotonic() - since > seconds * (1 if seen else STARTS_AS_LONG) and process.is_alive():
            process.kill()
            process.join()
            return False
    return True


def _work(
    settings: Settings[AnyJob],
    job: AnyJob,
    caution: Caution,
    trial: Trial,
    num_steps: Synchronized[int],
    errors: Any,
) -> None:
    _end_with_parent()

    def begin(step: Step) -> None:
        trial.begin(step)
        num_steps.get_obj().value += 1

    try:
        settings.worker().work(job, replace(caution, on_step=begin))
    except Exception:
        errors.put(traceback.format_exc()[-LONGEST_ERROR:])


def _end_with_parent() -> None:
    """Has the kernel end this process with the one that waits for it, even if this one is stopped then."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent.pid:  # it has ended already
        os._exit(1)


def _how(exit_code: int | None) -> str:
    if exit_code is None:
        return "exit status not known"
    if exit_code >= 0:
        return f"exit status {exit_code}"
    name = signal.Signals(-exit_code).name
    return f"{name}, perhaps for want of memory" if name == "SIGKILL" else name
