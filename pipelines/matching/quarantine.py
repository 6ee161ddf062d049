"""Quarantine for blocks that crash their worker's process: finds the image or pair at fault, and matches the rest.

Such a block is matched again in a process of its own that announces each step beforehand. The step that was announced
last when the process ended is the cause.
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
from typing import Any

from dhpf.manifest import CommitRecord, canonical_json
from dhpf.pipelines.cluster_metrics import Work, count_work
from dhpf.pipelines.inputs.block_source import BlockJob
from dhpf.pipelines.matching.block_matching import BlockWorker, WorkerSettings
from dhpf.pipelines.matching.describing import Caution
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.storage import Location

ENDS_AT_A_STEP = 2
"""An image or pair at which the process crashed this often is left out; one crash may be chance."""

ENDS_OF_A_BLOCK = 20
"""After this many crashes of its process, the rest of a block is not tried."""

_NO_STEP = -1
"""Stands for the time before the first step, while the process loads the model."""


class Quarantine:
    """The list, kept in the folder of a stage output, of images that ended a process; every block leaves them out."""

    def __init__(self, root: Location) -> None:
        self._folder = root / "quarantine"

    def images(self) -> dict[str, str]:
        """Why each image is under quarantine, by its id."""
        entries = [json.loads((self._folder / entry.key).read()) for entry in self._folder.entries()]
        return {entry["image"]: entry["reason"] for entry in entries}

    def add(self, image_id: str, reason: str) -> None:
        """Puts an image under quarantine, for good."""
        name = hashlib.sha256(image_id.encode("utf-8", "surrogateescape")).hexdigest()
        (self._folder / f"{name}.json").put_if_absent(canonical_json({"image": image_id, "reason": reason}))


def match_in_quarantine(settings: WorkerSettings, job: BlockJob) -> CommitRecord | str:
    """Finds one by one the images and pairs that end the process, then matches the block without them and commits it.

    Returns:
        the commit, or why the block is given up.

    Raises:
        RuntimeError: the process raised an exception instead of being ended.
    """
    quarantine = Quarantine(StageOutput(settings.root).root)
    block = job.open()
    fatal_pairs: dict[int, str] = {}
    ends: Counter[int] = Counter()
    while True:
        step, how = _match_in_process(settings, job, Caution(quarantine.images(), fatal_pairs))
        commit = StageOutput(settings.root).commit_of(job.task)
        if commit is not None:
            _count(settings, commit)
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
            fatal_pairs[place] = f"pair {block.pairs[place].pair_id}: {reason}"


def _count(settings: WorkerSettings, commit: CommitRecord) -> None:
    """Adds the block to the metrics, which the process that matched it, outside Ray, could not do."""
    num_pairs, num_failed, num_described = (
        int(commit.info[key]) for key in ("num_pairs", "num_failed", "num_described")
    )
    work = Work(num_pairs, num_described, seconds=float(commit.info["seconds"]), errors={"crash": num_failed})
    count_work(settings.rows.stage, work)


def refused(job: BlockJob, reason: str) -> Caution:
    """A Caution that leaves out every image of a block, so that all its pairs fail for this reason."""
    return Caution({image_id: reason for image_id, _ in job.open().images})


def _match_in_process(settings: WorkerSettings, job: BlockJob, caution: Caution) -> tuple[int, str]:
    """Matches a block in a new process; gives the last step that the process announced, and how the process ended."""
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
