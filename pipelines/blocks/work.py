"""What a stage gives to the pool that does its blocks: jobs, and a worker that does one job and commits it."""

from __future__ import annotations

from typing import Protocol, TypeVar

from dhpf.manifest import CommitRecord
from dhpf.pipelines.blocks.caution import Caution
from dhpf.pipelines.cluster_metrics import StageName


class Job(Protocol):
    """The work of one block; pickled and sent to workers."""

    @property
    def task(self) -> str:
        """The block's name in the plan of the stage."""

    @property
    def num_pairs(self) -> int: ...


AnyJob = TypeVar("AnyJob", bound=Job)
TakenJob = TypeVar("TakenJob", bound=Job, contravariant=True)


class Worker(Protocol[TakenJob]):
    """Does one job after the other."""

    def work(self, job: TakenJob, caution: Caution) -> CommitRecord:
        """Does a job and commits it.

        Raises:
            InputError: something that the block needs cannot be read, and no image is at fault.
        """


class Settings(Protocol[TakenJob]):
    """All that a worker is made from; pickled and sent to the actors."""

    @property
    def stage(self) -> StageName: ...

    @property
    def root(self) -> str:
        """Folder or URI of the stage output that is committed to."""

    def worker(self) -> Worker[TakenJob]:
        """Makes the worker, which may load a model."""
