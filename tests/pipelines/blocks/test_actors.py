"""Actors on a real cluster of this machine: which end, are slow to come, or raise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import ray

from dhpf.errors import InputError
from dhpf.pipelines.blocks import actors
from dhpf.pipelines.blocks.actors import answers

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster


class Squarer:
    """Squares numbers; ends its process, or raises, where a file says so."""

    def __init__(self, orders: str) -> None:
        self._orders = Path(orders)

    def arrive(self) -> None:
        pass

    def prepare(self) -> None:
        self._obey("prepare")

    def square(self, number: int) -> int:
        self._obey(str(number))
        return number * number

    def _obey(self, name: str) -> None:
        order = self._orders / name
        if order.exists():
            left, *how = order.read_text().split()
            order.write_text(" ".join([str(int(left) - 1), *how])) if int(left) > 1 else order.unlink()
            os.kill(os.getpid(), signal.Signals[how[0] if how else "SIGKILL"])
        if (self._orders / f"{name}.error").exists():
            raise InputError(f"{name}: cannot be squared")


@pytest.fixture
def squares(ray_cluster: None, tmp_path: Path) -> Callable[..., Any]:
    """Gives what actors answer to numbers; `cpus` is what each actor reserves, of the cluster's 6."""

    def make(numbers: Any, *, least: int = 2, most: int = 2, cpus: float = 1, **options: Any) -> Any:
        actor = ray.remote(num_cpus=cpus, max_restarts=0)(Squarer)
        return answers(
            numbers,
            lambda: actor.remote(str(tmp_path)),
            lambda one, number, attempt: one.square.remote(number),
            least=least,
            most=most,
            **options,
        )

    return make


def test_every_job_is_answered_once_and_jobs_are_made_as_actors_are_free(squares: Callable[..., Any]) -> None:
    made: list[int] = []
    answered = 0

    def numbers() -> Iterator[int]:
        for number in range(40):
            assert len(made) - answered <= 2, "no more jobs than actors"
            made.append(number)
            yield number

    found = []
    for answer, attempt in squares(numbers()):
        answered += 1
        found.append((answer, attempt))
    assert sorted(found) == [(number * number, 1) for number in range(40)]
    assert list(squares([])) == []


def test_the_job_of_an_actor_that_ended_goes_to_another_and_no_other_job_counts_as_begun_again(
    squares: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "3").write_text("2")
    (tmp_path / "prepare").write_text("1")
    found = dict(squares(range(8)))
    assert found == {number * number: 3 if number == 3 else 1 for number in range(8)}


def test_work_begins_though_the_cluster_has_no_room_for_all(squares: Callable[..., Any]) -> None:
    assert len(list(squares(range(9), least=3, most=3, cpus=4))) == 9
    deadline = time.time() + 30
    while ray.available_resources().get("CPU", 0) < 6:  # the others, which waited for room, are gone
        assert time.time() < deadline
        time.sleep(0.1)


def test_more_actors_join_once_the_least_are_there(squares: Callable[..., Any]) -> None:
    free: list[float] = []
    for _ in squares(range(30), least=1, most=3):
        time.sleep(0.1)
        free.append(ray.available_resources().get("CPU", 0))
    assert min(free) == 3


def test_an_actors_sentence_comes_without_its_traceback(squares: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "1.error").touch()
    with pytest.raises(InputError) as caught, closing(squares(range(8))) as found:
        list(found)
    assert str(caught.value) == "1: cannot be squared"
    (tmp_path / "prepare.error").touch()
    with pytest.raises(InputError, match="^prepare: cannot be squared$"):
        list(squares(range(8)))


def test_actors_that_end_over_and_over_are_given_up(
    squares: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors, "MAX_ENDS_OF_ACTOR", 2)
    (tmp_path / "0").write_text("99")
    with pytest.raises(InputError, match="^3 workers ended one after the other, the last.*is done stays"):
        list(squares(range(2), least=1, most=1))


@pytest.mark.chaos
def test_actors_that_are_stopped_are_replaced_and_their_jobs_begun_again(
    squares: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "prepare").write_text("1 SIGSTOP")
    (tmp_path / "5").write_text("2 SIGSTOP")
    asked: list[tuple[int | None, int]] = []

    def limit(number: int | None, attempt: int) -> float:
        asked.append((number, attempt))
        return 4.0 if number is None else 6.0  # job 5 is begun again for so long that the start is replaced

    found = dict(squares(range(8), limit=limit))
    assert found == {number * number: 3 if number == 5 else 1 for number in range(8)}
    assert {(5, 1), (5, 2), (5, 3), (None, 1), (None, 2)} < {*asked}
    deadline = time.time() + 60
    while ray.available_resources().get("CPU", 0) < 6:  # what the stopped ones had is free again
        assert time.time() < deadline
        time.sleep(0.1)


DRIVER = """
import sys, time, ray
from dhpf.pipelines.blocks.actors import answers
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
@ray.remote(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")
class Slow:
    def arrive(self):
        pass
    def prepare(self):
        pass
    def where(self, number):
        time.sleep(0.3)
        return number, ray.get_runtime_context().get_node_id()
called = lambda actor, number, attempt: actor.where.remote(number)
for (number, node), attempt in answers(range(40), Slow.remote, called, least=2, most=2):
    print("ANSWER", number, node, attempt, flush=True)
"""


@pytest.mark.slow
@pytest.mark.chaos
def test_the_job_of_a_machine_that_is_lost_goes_to_another_machine(
    two_machines: Cluster, kill_tree: Callable[[subprocess.Popen[bytes]], None]
) -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, two_machines.address], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    said = (line.split()[1:] for line in driver.stdout if line.startswith("ANSWER"))  # Ray prints there, too
    answered: list[list[str]] = []
    while len({node for _, node, _ in answered}) < 2:
        answered.append(next(said))
    kill_tree(two_machines.list_all_nodes()[-1].all_processes["raylet"][0].process)
    answered += said
    assert driver.wait(timeout=60) == 0
    assert sorted(int(number) for number, _, _ in answered) == list(range(40))
    assert sorted(attempt for _, _, attempt in answered) == ["1"] * 39 + ["2"]
