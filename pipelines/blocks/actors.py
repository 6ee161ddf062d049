"""Hands jobs to Ray actors, one at a time to each, and replaces the actors that end, or that do not answer in time.

A job is made when an actor is free for it, so the driver holds no more jobs than there are actors. Ray itself neither
restarts these actors nor retries their calls: only the driver knows which job an actor had when it ended, and so how
often the job was begun. An actor may also answer None: its job is then begun again.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from dhpf.errors import InputError
from dhpf.pipelines.worker_reports import result_of

Job = TypeVar("Job")

MAX_ENDS_OF_ACTOR = 100
"""How many actors may end, for each that may work. It is far above what bad images need: an image ends an actor only
once, because its block is done in quarantine afterwards."""

FOR_EVER = float("inf")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Call(Generic[Job]):
    """A call that an actor is at.

    Attributes:
        begun: the job and how often it was begun; None while the actor starts.
        is_here: whether the cluster had room for the actor.
        seconds: how long the call may take.
        until: when it ends at the latest, by time.monotonic.
    """

    actor: Any
    begun: tuple[Job, int] | None
    is_here: bool
    seconds: float
    until: float


def answers(
    jobs: Iterable[Job],
    start: Callable[[], Any],
    call: Callable[[Any, Job, int], Any],
    *,
    least: int,
    most: int,
    limit: Callable[[Job | None, int], float] = lambda job, attempt: FOR_EVER,
) -> Generator[tuple[Any, int]]:
    """Hands each job to an actor, and yields what it answers and how often the job was begun, in the order of answers.

    Work begins with the first actor that the cluster has room for, and the others join in.

    Args:
        start: starts an actor; its method `arrive` does nothing, and its method `prepare` ends once it can take a job.
        call: calls an actor with a job and the number of this attempt at it, from 1; gives the call's reference.
        least, most: actors that are asked for at first, and once these are there.
        limit: seconds that an actor may take for a job at this attempt, or, for None, to prepare itself when so many
            actors have not been in time for that; then it is killed, even if its process is stopped.

    Raises:
        InputError: the one that an actor raised; or actors end over and over.
    """
    waiting, again = iter(jobs), deque[tuple[Job, int]]()
    at_work: dict[Any, _Call[Job]] = {}
    alive: set[Any] = set()
    num_ready = num_ended = num_slow_starts = 0
    is_done = False

    def note(reference: Any, actor: Any, begun: tuple[Job, int] | None, seconds: float, *, is_here: bool) -> None:
        at_work[reference] = _Call(actor, begun, is_here, seconds, time.monotonic() + seconds)

    def add_actors(number: int) -> None:
        for _ in range(number):
            actor = start()
            alive.add(actor)
            note(actor.arrive.remote(), actor, None, FOR_EVER, is_here=False)

    def replace(lost: _Call[Job], why: object) -> None:
        nonlocal num_ended
        num_ended += 1
        alive.remove(lost.actor)
        ray.kill(lost.actor)
        if num_ended > MAX_ENDS_OF_ACTOR * most:
            raise InputError(
                f"{num_ended} workers ended one after the other, the last because: {_first_line(why)}; what is done "
                "stays; see what ends them (their logs lie in /tmp/ray/session_latest/logs of their machines), then "
                "give the same command again"
            )
        again.extend([lost.begun] if lost.begun else [])
        add_actors(1)

    try:
        add_actors(least)
        while not is_done:
            done = _first_done(at_work)
            if done is None:
                for overdue in _overdue(at_work):
                    lost = at_work.pop(overdue)
                    num_slow_starts += lost.begun is None
                    why = f"a worker did not answer within {lost.seconds:.0f} s; another takes its place"
                    _log.warning(why)
                    replace(lost, why)
                continue
            called = at_work.pop(done)
            actor, begun = called.actor, called.begun
            try:
                answer = result_of(done)
            except RayTaskError:
                raise
            except RayError as error:  # its process or its machine is lost, or does not answer
                replace(called, error)
                continue
            if not called.is_here:
                note(actor.prepare.remote(), actor, None, limit(None, num_slow_starts + 1), is_here=True)
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
                job, attempt = following[0], following[1] + 1
                note(call(actor, job, attempt), actor, (job, attempt), limit(job, attempt), is_here=True)
            else:
                alive.remove(actor)
                actor.__ray_terminate__.remote()  # whoever still refers to it; its last metrics are sent
                is_done = not any(call.begun for call in at_work.values())
    finally:
        for left in alive:
            ray.kill(left)


def _first_done(at_work: Mapping[Any, _Call[Job]]) -> Any:
    """The reference of a call that has ended; None where one has to end by now and has not."""
    first = min(call.until for call in at_work.values())
    seconds = None if first == FOR_EVER else max(0.0, first - time.monotonic())
    done, _ = ray.wait(list(at_work), num_returns=1, timeout=seconds)
    return done[0] if done else None


def _overdue(at_work: Mapping[Any, _Call[Job]]) -> list[Any]:
    now = time.monotonic()
    return [reference for reference, call in at_work.items() if call.until <= now]


def _first_line(why: object) -> str:
    return (str(why).splitlines() or [type(why).__name__])[0]
