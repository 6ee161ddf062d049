"""Lists the project's files that one follows to see one pair go from `dhpf run match-folder` to its Parquet row.

    python tests/trace_match.py

A folder of two images is matched in this process, driver and actor alike: Ray is not started, and an actor is an object
whose methods run when they are called. A file counts if one of its functions or methods ran. What runs when a module is
imported does not count (all modules are imported before), nor do methods that `dataclass` made, nor the pictures that
the run draws of its result: dhpf/drawing/ and every module called pictures; nor does the thread beside the run that
plays its journal into MLflow, nor the threads that this one starts.

Files that called a function of another file are marked with an arrow: through these one reads on. The others are ends,
whose functions are often understood from their names where they are called. A star marks the files that ran in the
actor after it was made, from the block that it is handed to the row that it commits: these carry the pair itself.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType, SimpleNamespace

import numpy as np
from PIL import Image

ROOT = Path(os.environ.get("TRACED_TREE", Path(__file__).parents[1])).resolve()
PACKAGES = ("dhpf", "pipelines")


actor_has_block = threading.Event()
"""Set while an actor works on a block."""


class ActorHere:
    """Takes the place of a Ray actor: a method runs in this process, at the moment it is called."""

    def __init__(self, worker: object) -> None:
        self._worker = worker

    def __getattr__(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(remote=partial(self._call, name))

    def _call(self, name: str, *arguments: object) -> Answer:
        if name == "__ray_terminate__":  # Ray gives every actor this method
            return Answer(None)
        if name not in ("arrive", "prepare"):
            actor_has_block.set()
        answer = getattr(self._worker, name)(*arguments)
        actor_has_block.clear()
        return Answer(answer)


@dataclass(eq=False)
class Answer:
    """Takes the place of a reference to what a call answers."""

    value: object


def actors_here(**_: object) -> Callable[[type], SimpleNamespace]:
    """Takes the place of ray.remote for a class."""
    return lambda worker: SimpleNamespace(remote=lambda *arguments: ActorHere(worker(*arguments)))


def put_here(replace: Callable[[str, object], object]) -> None:
    """Replaces by name what the pool of actors uses of Ray."""
    replace("remote", actors_here)
    replace("wait", lambda references, num_returns, timeout: (references[:num_returns], references[num_returns:]))
    replace("get", lambda reference: reference.value)
    replace("kill", lambda actor: None)


def import_everything() -> None:
    """All modules of the project, so that nothing is imported while it is looked at."""
    sys.path.insert(0, str(ROOT))
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            if (ROOT / "dhpf" / "pipelines").exists() and name.startswith("pipelines"):
                name = f"dhpf.{name}"
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


@dataclass
class Trace:
    """What ran.

    Attributes:
        calls: (file of the caller, file of the called) of each function of the project.
        carriers: files of the functions that ran while an actor worked on a block.
    """

    calls: set[tuple[str, str]] = field(default_factory=set)
    carriers: set[str] = field(default_factory=set)

    def files(self) -> list[str]:
        """All files, in alphabetical order."""
        return sorted({called for _, called in self.calls})

    def callers(self) -> set[str]:
        """The files that call functions of other files."""
        return {caller for caller, called in self.calls if caller != called} & set(self.files())


@contextlib.contextmanager
def traced(trace: Trace) -> Iterator[None]:
    """Notes each function of the project that runs, in all threads but those that tell MLflow of it."""
    known: dict[str, str] = {}
    tellers: set[threading.Thread] = set()
    start_thread = threading.Thread.start

    def is_teller(thread: threading.Thread) -> bool:
        return thread in tellers or thread.name.startswith("dhpf-journal")

    def start(thread: threading.Thread) -> None:
        if is_teller(threading.current_thread()):
            tellers.add(thread)
        start_thread(thread)

    def file_of(frame: FrameType | None) -> str:
        filename = frame.f_code.co_filename if frame else ""
        if filename not in known:
            known[filename] = _name_here(filename)
        return known[filename]

    def note(frame: FrameType, event: str, _: object) -> None:  # of calls only: it answers None
        is_function = frame.f_code.co_flags & inspect.CO_OPTIMIZED  # and not a class's body
        if is_function and not is_teller(threading.current_thread()):
            called = file_of(frame)
            if called:
                trace.calls.add((file_of(frame.f_back), called))
                if actor_has_block.is_set():
                    trace.carriers.add(called)

    threading.Thread.start = start  # type: ignore[assignment, method-assign]
    threading.settrace(note)
    sys.settrace(note)
    try:
        yield
    finally:
        sys.settrace(None)
        threading.settrace(None)
        threading.Thread.start = start_thread  # type: ignore[method-assign]


def _name_here(filename: str) -> str:
    path = Path(filename).resolve()
    if not path.is_relative_to(ROOT) or path.relative_to(ROOT).parts[0] not in PACKAGES:
        return ""
    name = path.relative_to(ROOT).as_posix()
    return "" if "drawing" in name or "pictures" in name else name


def trace_of_a_match() -> Trace:
    """Matches two images, as the command line would, and says what ran."""
    import ray

    import_everything()
    ray.init = ray.shutdown = lambda *_, **__: None  # type: ignore[assignment]
    put_here(partial(setattr, ray))
    in_dhpf = (ROOT / "dhpf" / "pipelines").exists()
    command = importlib.import_module("dhpf.pipelines.__main__" if in_dhpf else "pipelines.__main__")
    trace = Trace()
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()) as said:
        photos = Path(name) / "photos" / "kind"
        photos.mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        for side in ("source.png", "target.png"):
            Image.fromarray(pixels).resize((200, 150)).save(photos / side)
        arguments = ["run", "match-folder", "--file", str(ROOT / "workflows.yaml"), "--data", name]
        with traced(trace), contextlib.redirect_stdout(io.StringIO()):
            status = command.main([*arguments, "--work", f"{name}/work"])
        assert status == 0 and list(Path(name).rglob("part.parquet")), said.getvalue()
    return trace


if __name__ == "__main__":
    found = trace_of_a_match()
    files, callers = found.files(), found.callers()
    for file in files:
        print("->" if file in callers else "  ", "*" if file in found.carriers else " ", file)
    print(f"{len(files)} files, {len(callers)} of them call functions of others; {len(found.carriers)} carry the pair")
