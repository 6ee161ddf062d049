"""Hands jobs to Ray actors, one at a time to each, and replaces the actors that end.

A job is made when an actor is free for it, so the driver holds no more jobs than there are actors. Ray itself neither
restarts these actors nor retries their calls: only the driver knows which job an actor had when it ended, and so how
often the job was begun. An actor may also answer None: its job is then begun again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from dhpf.pipelines.worker_reports import result_of

Job = TypeVar("Job")

MAX_ENDS_OF_ACTOR = 100
"""How many actors may end, for each that may work. It is far above what bad images need: an image ends an actor only
once, because its block is matched in quarantine afterwards."""


def answers(
    jobs: Iterable[Job],
    start: Callable[[], Any],
    call: Callable[[Any, Job, int], Any],
    *,
    least: int,
    most: int,
) -> Generator[tuple[Any, int]]:
    """Hands each job to an actor, and yields what it answers and how often the job was begun, in the order of answers.

    Work begins with the first actor that the cluster has room for, and the others join in.

    Args:
        start: starts an actor; its method `prepare` ends once it can take a job.
        call: calls an actor with a job and the number of this attempt at it, from 1; gives the call's reference.
        least, most: actors that are asked for at first, and once these are there.

    Raises:
        InputError: the one that an actor raised.
        RayError: actors end over and over.
    """
    waiting, again = iter(jobs), deque[tuple[Job, int]]()
    at_work: dict[Any, tuple[Any, tuple[Job, int] | None]] = {}
    num_ready = num_ended = 0
    is_done = False

    def add_actors(number: int) -> None:
        for _ in range(number):
            actor = start()
            at_work[actor.prepare.remote()] = actor, None

    try:
        add_actors(least)
        while not is_done:
            (done,), _ = ray.wait(list(at_work), num_returns=1)
            actor, begun = at_work.pop(done)
            try:
                answer = result_of(done)
            except RayTaskError:
                raise
            except RayError:  # its process or its machine is lost, or does not answer
                num_ended += 1
                if num_ended > MAX_ENDS_OF_ACTOR * most:
                    raise
                ray.kill(actor)
                again.extend([begun] if begun else [])
                add_actors(1)
                continue
            if begun and answer is None:
                again.append(begun)
            elif begun:
                yield answer, begun[1]
            else:
                num_ready += 1
                add_actors(most - least if num_ready == least else 0)
            following = again.popleft() if again else next(((job, 0) for job in waiting), None)
            if following:
                job, attempts = following
                at_work[call(actor, job, attempts + 1)] = actor, (job, attempts + 1)
            else:
                is_done = not any(begun for _, begun in at_work.values())
    finally:
        for actor, _ in at_work.values():
            ray.kill(actor)
