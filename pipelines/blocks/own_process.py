"""Does a block in a process of its own, which may crash or hang without harm to the one that waits for it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from dataclasses import replace
from typing import Any

from dhpf.pipelines.blocks.caution import Caution
from dhpf.pipelines.blocks.trials import Trial
from dhpf.pipelines.blocks.work import AnyJob, Settings

LONGEST_ERROR = 10_000
"""Characters of a traceback that the process hands on; a pipe holds that much."""


def end_of_process(settings: Settings[AnyJob], job: AnyJob, caution: Caution, trial: Trial) -> str:
    """Does a job in a new process, which notes each step in the trial.

    Returns:
        how the process ended.

    Raises:
        RuntimeError: it raised an exception instead of being ended.
    """
    context = multiprocessing.get_context("spawn")
    errors = context.SimpleQueue()
    process = context.Process(target=_work, args=(settings, job, caution, trial, errors), daemon=True)
    process.start()
    process.join()
    if not errors.empty():
        raise RuntimeError(f"{job.task}, done in a process of its own: {errors.get()}")
    return _how(process.exitcode)


def _work(settings: Settings[AnyJob], job: AnyJob, caution: Caution, trial: Trial, errors: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        settings.worker().work(job, replace(caution, on_step=trial.begin))
    except Exception:
        errors.put(traceback.format_exc()[-LONGEST_ERROR:])


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _how(exit_code: int | None) -> str:
    if exit_code is None:
        return "exit status not known"
    if exit_code >= 0:
        return f"exit status {exit_code}"
    name = signal.Signals(-exit_code).name
    return f"{name}, perhaps for want of memory" if name == "SIGKILL" else name
