"""Blocks that end their worker's process: which image or pair does it is found out, and the rest is matched.

Such a block is matched again in a process of its own, which says what it does next, so that its end names the guilty.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
import traceback
from collections import Counter
from dataclasses import replace
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from dhpf.manifest import CommitRecord, canonical_json
from dhpf.pipelines.inputs.block_job import BlockJob
from dhpf.pipelines.matching.caution import Caution
from dhpf.pipelines.matching.worker import BlockWorker, WorkerSettings
from dhpf.pipelines.outputs.store import StageOutput, put_if_absent

ENDS_AT_A_STEP = 2
"""What ends the process so often is left out; once may be bad luck: a machine short of memory kills anyone."""

ENDS_OF_A_BLOCK = 20
"""After so many the rest of the block is not tried."""

_NO_STEP = -1
"""While the process loads the model."""


class Quarantine:
    """The images that ended a process, of one stage output; every block leaves them out."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "quarantine"

    def images(self) -> dict[str, str]:
        """Why, by image id."""
        entries = [json.loads(path.read_bytes()) for path in sorted(self._folder.glob("*.json"))]
        return {entry["image"]: entry["reason"] for entry in entries}

    def add(self, image_id: str, reason: str) -> None:
        """Puts an image under quarantine, for good."""
        name = hashlib.sha256(image_id.encode("utf-8", "surrogateescape")).hexdigest()
        put_if_absent(self._folder / f"{name}.json", canonical_json({"image": image_id, "reason": reason}))


def match_in_quarantine(settings: WorkerSettings, job: BlockJob) -> CommitRecord | str:
    """Matches and commits a block without the images and pairs that end the process, which are found one by one.

    Returns:
        what was committed, or why the block is given up.

    Raises:
        RuntimeError: an error in the process that is not its end.
    """
    quarantine = Quarantine(Path(settings.root))
    block = job.open()
    guilty_pairs: dict[int, str] = {}
    ends: Counter[int] = Counter()
    while True:
        step, how = _match_in_process(settings, job, Caution(quarantine.images(), guilty_pairs))
        commit = StageOutput(settings.root).commit_of(job.task)
        if commit is not None:
            return commit
        ends[step] += 1
        reason = f"ended its worker's process {ends[step]} times ({how})"
        if ends.total() == ENDS_OF_A_BLOCK or ends[_NO_STEP] == ENDS_AT_A_STEP:
            return f"not tried: {job.task} ended its worker's process {ends.total()} times ({how})"
        if ends[step] < ENDS_AT_A_STEP:
            continue
        if step < len(block.images):
            image_id = block.images[step][0]
            quarantine.add(image_id, f"image {image_id}: {reason}")
        else:
            place = step - len(block.images)
            guilty_pairs[place] = f"pair {block.pairs[place].pair_id}: {reason}"


def refused(job: BlockJob, reason: str) -> Caution:
    """So that no image of a block is touched."""
    return Caution({image_id: reason for image_id, _ in job.open().images})


def _match_in_process(settings: WorkerSettings, job: BlockJob, caution: Caution) -> tuple[int, str]:
    """The step that the process was at last, and how it ended."""
    context = multiprocessing.get_context("spawn")
    step = context.Value("q", _NO_STEP)
    errors = context.SimpleQueue()
    process = context.Process(target=_match, args=(settings, job, caution, step, errors), daemon=True)
    process.start()
    process.join()
    if not errors.empty():
        raise RuntimeError(f"{job.task}, matched in a process of its own: {errors.get()}")
    return step.value, _how(process.exitcode)


def _match(settings: WorkerSettings, job: BlockJob, caution: Caution, step: Synchronized[int], errors: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def on_step(number: int) -> None:
        step.get_obj().value = number

    try:
        worker = BlockWorker(settings)
        worker.match(job, replace(caution, on_step=on_step))
    except Exception:
        errors.put(traceback.format_exc())


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
