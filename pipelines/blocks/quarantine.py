"""Quarantine for blocks that end their worker's process: finds the images and pairs at fault, and does the rest.

Such a block is tried again in a process of its own that notes each step beforehand. A step at which processes end again
and again is the cause, and is left out. What others do to a process (an operator, a lost machine, another's want of
memory) happens at a different step each time, so it costs a block time, and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from dhpf.errors import InputError
from dhpf.manifest import CommitRecord, read_json, sealed_json
from dhpf.pipelines.blocks.caution import Caution
from dhpf.pipelines.blocks.own_process import end_of_process
from dhpf.pipelines.blocks.trials import LOADING, End, Trials, fatal_steps
from dhpf.pipelines.blocks.work import AnyJob, Job, Settings
from dhpf.pipelines.cluster_metrics import Work, count_work
from dhpf.pipelines.outputs.store import SCRATCH, StageOutput
from dhpf.storage import Location

FATAL_STEPS_OF_A_BLOCK = 10
"""With so many images and pairs that end processes, the rest of a block is not tried."""

ENDS_WHILE_LOADING = 10
"""After so many ends before the first step of a block the run stops: then this machine, and no block, is the cause."""

_REMEDY = "delete the file: if its image still ends processes, that is found out again"


class Quarantine:
    """The list, kept in the folder of a stage output, of images that ended a process; every block leaves them out.

    Args:
        root: of the output.
    """

    def __init__(self, root: Location) -> None:
        self._root, self._folder = root, root / "quarantine"

    def images(self) -> dict[str, str]:
        """Why each image is under quarantine, by its id."""
        entries = [read_json(self._folder / entry.key, _REMEDY) for entry in self._folder.entries()]
        return {entry["image"]: entry["reason"] for entry in entries}

    def add(self, image_id: str, reason: str) -> None:
        """Puts an image under quarantine, until `lift`."""
        name = hashlib.sha256(image_id.encode("utf-8", "surrogateescape")).hexdigest()
        (self._folder / f"{name}.json").put_if_absent(sealed_json({"image": image_id, "reason": reason}))

    def lift(self, tasks: Iterable[str]) -> None:
        """Gives all images, and what these blocks have left out, another chance."""
        for task in tasks:
            _trials_folder(self._root, task).delete_all()
        self._folder.delete_all()


def try_in_quarantine(settings: Settings[AnyJob], job: AnyJob, seconds_of_a_step: float) -> CommitRecord | None:
    """Tries a block once more in a process of its own, without what earlier trials have proven to end it.

    Args:
        seconds_of_a_step: how long a step may take; then the process is ended.

    Returns:
        the commit; None where the process ended before, so that the block is to be tried again.

    Raises:
        InputError: processes end before the block's first step.
        RuntimeError: the process raised an exception instead of being ended.
    """
    output = StageOutput(settings.root)
    trials = Trials(_trials_folder(output.root, job.task))
    caution = _caution(Quarantine(output.root), job, trials.ends())
    if caution.block:
        return settings.worker().work(job, caution)
    trial = trials.new()
    how = end_of_process(settings, job, caution, trial, seconds_of_a_step)
    commit = output.commit_of(job.task)
    if commit is None:
        trial.end(how)
    else:
        _count(settings, commit)
    return commit


def _trials_folder(root: Location, task: str) -> Location:
    return root / SCRATCH / "trials" / task


def _caution(quarantine: Quarantine, job: Job, ends: list[End]) -> Caution:
    """What is left out of a block after these ends; images are left out of all other blocks, too."""
    loading = [end.how for end in ends if end.step == LOADING]
    if len(loading) >= ENDS_WHILE_LOADING:
        raise InputError(
            f"{job.task}: its process ended {len(loading)} times before it came to the first image, at last with "
            f"{loading[-1]}; see that a worker has the memory it needs, then run again: what is done stays"
        )
    pairs: dict[int, str] = {}
    block = ""
    fatal = fatal_steps(ends)
    for step, reason in fatal.items():
        if step.kind == "image":
            quarantine.add(step.name, f"image {step.name}: {reason}")
        elif step.kind == "pair":
            pairs[int(step.name)] = reason
        else:
            block = f"{job.task}: {reason}"
    if len(fatal) >= FATAL_STEPS_OF_A_BLOCK:
        block = f"not tried: {len(fatal)} images or pairs of {job.task} each {next(iter(fatal.values()))}"
    return Caution(quarantine.images(), pairs, block)


def _count(settings: Settings[AnyJob], commit: CommitRecord) -> None:
    """Adds the block to the metrics, which the process that did it, outside Ray, could not do."""
    info = commit.info
    work = Work(
        int(info["num_pairs"]),
        int(info.get("num_described", 0)),
        seconds=float(info["seconds"]) if "seconds" in info else None,
        errors={"crash": int(info.get("num_failed", 0))},
    )
    count_work(settings.stage, work)
