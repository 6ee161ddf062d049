"""Explores all orders in which the steps of several processes can happen that share a store.

A process is a plain function that is given a location in the store. Each of its storage operations is one step, and
between any two steps of a process any other process may take steps, or the process may die. What a process does next
depends on nothing but the answers that it got so far, so it is run again from its beginning with these answers, up to
the first operation that has none. No threads are needed, and states that were seen before are not explored again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from dhpf.errors import InputError
from dhpf.regular_files import Stamp
from dhpf.storage import Entry, Location

Store = frozenset[tuple[str, bytes]]
"""What is stored, by key."""

LOST = "the answer is lost"
"""Stands for the answer to a write that was applied and whose caller was told of an error."""


class Step(NamedTuple):
    """What a process wants to do next.

    Attributes:
        kind: the operation of the store; "start" for starting tasks, "await" for waiting until one has ended.
        key: what it is done to.
        content: what is written, or the tasks to start.
    """

    kind: str
    key: str
    content: Any = b""


class Ended(NamedTuple):
    """The end of a process: what it gave, or the error that ended it."""

    value: Any
    error: Exception | None = None


class Past(NamedTuple):
    """What a process has seen: the answers that it got, and which start of it this is.

    Attributes:
        number: the same for the same past, so that states are compared quickly.
    """

    number: int
    start: int = 0
    answers: tuple[Any, ...] = ()


class Wants(BaseException):
    """Leaves a process at its next step; no `except Exception` of the process stops it."""

    def __init__(self, step: Step) -> None:
        self.step = step


class Answers:
    """The answers that a process got so far, which it is given again."""

    def __init__(self, name: str, given: tuple[Any, ...]) -> None:
        self.name, self._given, self._at, self._names = name, given, 0, 0

    def take(self, step: Step) -> Any:
        """The answer to a step."""
        if self._at == len(self._given):
            raise Wants(step)
        self._at += 1
        answer = self._given[self._at - 1]
        if answer is LOST:
            raise InputError(f"{step.key}: the store does not answer")
        return answer

    def new_name(self) -> str:
        """Takes the place of uuid4: another name at every call, the same when the process is run again."""
        self._names += 1
        return f"{self.name}-{self._names}"


@dataclass(frozen=True)
class ExploredLocation(Location):
    """A key of the explored store, or the store itself."""

    answers: Answers
    key: str = ""

    def __truediv__(self, key: str) -> ExploredLocation:
        return replace(self, key=f"{self.key}/{key}".strip("/"))

    def __str__(self) -> str:
        return f"/{self.key}"

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    def put(self, content: bytes) -> None:
        self.answers.take(Step("put", self.key, content))

    def put_if_absent(self, content: bytes) -> bool:
        return bool(self.answers.take(Step("put_if_absent", self.key, content)))

    def put_file(self, path: Path) -> None:
        self.put(path.read_bytes())

    def find(self, limit: int | None = None, listed: Stamp | None = None) -> bytes | None:
        found: bytes | None = self.answers.take(Step("find", self.key))
        return found

    def read_range(self, begin: int, size: int) -> bytes:
        return self.read()[begin : begin + size]

    def stamp(self) -> Stamp | None:
        content = self.find()
        return None if content is None else Stamp(len(content), 0)

    def entries(self, *, hidden: bool = False) -> Iterator[Entry]:
        return iter(self.answers.take(Step("entries", self.key)))

    def delete(self) -> None:
        self.answers.take(Step("delete", self.key))

    def delete_all(self) -> None:
        for entry in list(self.entries(hidden=True)):
            (self / entry.key).delete()


def _name_of(process: tuple[str, Any]) -> str:
    return process[0]


def applied(stored: Mapping[str, bytes], step: Step) -> tuple[Any, Mapping[str, bytes]]:
    """The answer to a storage operation, and what is stored after it: the same object where nothing has changed."""
    content = stored.get(step.key)
    if step.kind == "find":
        return content, stored
    if step.kind == "entries":
        prefix = f"{step.key}/"
        keys = sorted(key for key in stored if key.startswith(prefix))
        return tuple(Entry(key.removeprefix(prefix), len(stored[key])) for key in keys), stored
    if step.kind == "delete":
        return None, stored if content is None else {key: c for key, c in stored.items() if key != step.key}
    if step.kind == "put_if_absent" and content is not None:
        return content == step.content, stored
    return True, {**stored, step.key: step.content}


Process = Callable[[ExploredLocation, Callable[[Step], Any]], Any]
"""Given the store, and what takes the steps that are none of the store's."""


class State(NamedTuple):
    """A state of all processes together.

    Attributes:
        store: number of what is stored.
        pasts: of each process its name and what it has seen; None once it is dead.
        crashes, losses: how many more there may be.
        late: the drivers that began when the output was complete.
    """

    store: int
    pasts: tuple[tuple[str, Past | None], ...]
    crashes: int
    losses: int
    late: frozenset[str] = frozenset()


@dataclass
class Explorer:
    """Explores what drivers and their workers can do together.

    A worker that dies is started again, as Ray does; a driver dies with its workers, and then, or when it ends with an
    error, the same command is given again: another driver begins.

    Attributes:
        process: makes the process of this name; "DRIVER>TASK" is the worker that a driver started for a task.
        check: called with what was stored, who takes which step, what is stored then, and whether the process is a
            driver that began when the output was complete.
        at_end: called with what is stored when no process can take a step, with the ends of those that have ended, and
            with whether none died and no answer was lost.
        complete: the key whose presence means that the output is complete.
        settled: what is read always gives the same once it is there (keys), or is never written (folders).
        crashes: how many processes may die.
        losses: how many answers to writes may be lost.
    """

    process: Callable[[str], Process]
    check: Callable[[Mapping[str, bytes], str, Step, Mapping[str, bytes], bool], None]
    at_end: Callable[[Mapping[str, bytes], Mapping[str, Ended], bool], None]
    complete: str
    settled: tuple[str, ...]
    crashes: int = 0
    losses: int = 0
    _next: dict[tuple[str, int], Step | Ended] = field(default_factory=dict)
    _pasts: dict[tuple[int, Any], Past] = field(default_factory=dict)
    _stores: dict[Store, int] = field(default_factory=dict)
    _stored: list[Mapping[str, bytes]] = field(default_factory=list)
    _after_step: dict[tuple[int, str, Step, bool], tuple[Any, int]] = field(default_factory=dict)

    def explore(self, drivers: tuple[str, ...]) -> int:
        """Visits every state once, drivers beginning at any time; gives the number of states.

        Raises:
            AssertionError: of `check` or `at_end`.
        """
        first = State(self._number({}), tuple((name, self._begun()) for name in drivers), self.crashes, self.losses)
        seen, left = {self._mark(first)}, [first]
        while left:
            for state in self._followers(left.pop()):
                mark = self._mark(state)
                if mark not in seen:
                    seen.add(mark)
                    left.append(state)
        return len(seen)

    def _mark(self, state: State) -> tuple[Any, ...]:
        pasts = tuple((name, None if past is None else past.number) for name, past in state.pasts)
        return state.store, pasts, state.crashes, state.losses, state.late

    def _followers(self, state: State) -> list[State]:
        followers, waits = [], True
        for place, (name, past) in enumerate(state.pasts):
            step = None if past is None else self._step(name, past)
            if past is None or not isinstance(step, Step):
                continue
            after = self._after(state, place, step)
            if after and self._commutes(state, step):
                return after
            waits = waits and not after
            followers += after
            if state.crashes:
                followers.append(self._dead(state, place))
        if waits:
            ends = {name: self._step(name, past) for name, past in state.pasts if past is not None}
            undisturbed = (state.crashes, state.losses) == (self.crashes, self.losses)
            ended = {name: end for name, end in ends.items() if isinstance(end, Ended)}
            self.at_end(self._stored[state.store], ended, undisturbed)
        return followers

    def _commutes(self, state: State, step: Step) -> bool:
        """Whether a step gives and does the same whenever it happens, so that one order stands for all."""
        if step.kind == "find":
            return step.key.startswith(self.settled) and step.key in self._stored[state.store]
        return step.kind in ("start", "await") or (step.kind == "entries" and step.key in self.settled)

    def _after(self, state: State, place: int, step: Step) -> list[State]:
        """The states after a process takes its step; none where it has to wait."""
        name, past = state.pasts[place]
        assert past is not None
        if step.kind == "start":
            workers = tuple((f"{name}>{task}", self._begun()) for task in step.content)
            begun = self._with(state, place, None)
            return [begun._replace(pasts=tuple(sorted(begun.pasts + workers, key=_name_of)))]
        if step.kind == "await":
            worker = dict(state.pasts)[f"{name}>{step.key}"]
            end = None if worker is None else self._step(f"{name}>{step.key}", worker)
            return [self._with(state, place, LOST if end.error else end.value)] if isinstance(end, Ended) else []
        is_late = name in state.late or (
            not past.answers and ">" not in name and self.complete in self._stored[state.store]
        )
        answer, store = self._applied(state.store, name, step, is_late)
        moved = state._replace(store=store, late=state.late | {name} if is_late else state.late)
        after = [self._with(moved, place, answer)]
        if state.losses and step.kind.startswith("put"):
            after.append(self._with(moved._replace(losses=state.losses - 1), place, LOST))
        return after

    def _applied(self, store: int, name: str, step: Step, is_late: bool) -> tuple[Any, int]:
        """The answer to a storage operation, and the number of what is stored then, which is checked."""
        key = store, name, step, is_late
        if key not in self._after_step:
            answer, stored = applied(self._stored[store], step)
            self._after_step[key] = answer, self._number(stored)
            if stored is not self._stored[store]:
                self.check(self._stored[store], name, step, stored, is_late)
        return self._after_step[key]

    def _with(self, state: State, place: int, answer: Any) -> State:
        """The state in which a process has one answer more."""
        name, past = state.pasts[place]
        assert past is not None
        if (past.number, answer) not in self._pasts:
            later = Past(1 + len(self._pasts), past.start, (*past.answers, answer))
            self._pasts[past.number, answer] = later
        later = self._pasts[past.number, answer]
        pasts = state.pasts[:place] + ((name, later),) + state.pasts[place + 1 :]
        end = self._step(name, later)
        failed = ">" not in name and isinstance(end, Ended) and end.error is not None
        return state._replace(pasts=pasts + self._successor(pasts) if failed else pasts)

    def _dead(self, state: State, place: int) -> State:
        name, past = state.pasts[place]
        assert past is not None
        if ">" in name:
            pasts = state.pasts[:place] + ((name, self._begun(past.start + 1)),) + state.pasts[place + 1 :]
        else:
            dying = (name, f"{name}>")
            pasts = tuple((n, None if n == dying[0] or n.startswith(dying[1]) else p) for n, p in state.pasts)
            pasts += self._successor(pasts)
        return state._replace(pasts=pasts, crashes=state.crashes - 1)

    def _successor(self, pasts: tuple[tuple[str, Past | None], ...]) -> tuple[tuple[str, Past], ...]:
        number = 1 + sum(">" not in name for name, _ in pasts)
        return ((f"driver-{number}", self._begun()),)

    def _begun(self, start: int = 0) -> Past:
        return self._pasts.setdefault((-1, start), Past(1 + len(self._pasts), start))

    def _number(self, stored: Mapping[str, bytes]) -> int:
        number = self._stores.setdefault(frozenset(stored.items()), len(self._stored))
        if number == len(self._stored):
            self._stored.append(stored)
        return number

    def _step(self, name: str, past: Past) -> Step | Ended:
        if (name, past.number) not in self._next:
            given = Answers(f"{name}{'+' * past.start}", past.answers)
            try:
                end: Step | Ended = Ended(self.process(name)(ExploredLocation(given), given.take))
            except Wants as wants:
                end = wants.step
            except InputError as error:
                end = Ended(None, error)
            self._next[name, past.number] = end
        return self._next[name, past.number]
