"""Lists the project's files that one follows to see one pair go from `dhpf run match-folder` to its Parquet row.

    python tests/trace_match.py

A folder of two images is matched in this process, driver and actor alike: Ray is not started, and Ray Data's one call
is replaced by a loop over the blocks. A file counts if one of its functions or methods ran. What runs when a module is
imported does not count (all modules are imported before), nor do methods that `dataclass` made, nor the pictures that
the run draws of its result: dhpf/drawing/ and every module called pictures.

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
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(os.environ.get("TRACED_TREE", Path(__file__).parents[1])).resolve()
PACKAGES = ("dhpf", "pipelines")


actor_has_block = threading.Event()
"""Set while an actor works on a block."""


class BlocksHere:
    """Takes the place of a Ray data set: its blocks are matched one after the other in this process."""

    def __init__(self, items: list[dict[str, Any]], **_: object) -> None:
        self._items = items
        self._matcher: Callable[[dict[str, Any]], dict[str, list[Any]]] | None = None

    def map_batches(self, actor: type, *, fn_constructor_args: tuple[Any, ...] = (), **_: object) -> BlocksHere:
        """Makes the actor, as Ray would in a process of its own."""
        self._matcher = actor(*fn_constructor_args)
        return self

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        """One row of counts a block."""
        assert self._matcher is not None
        for item in self._items:
            actor_has_block.set()
            found = self._matcher({name: np.array([value]) for name, value in item.items()})
            actor_has_block.clear()
            yield {name: values[0] for name, values in found.items()}


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
    """Notes each function of the project that runs, in all threads."""
    known: dict[str, str] = {}

    def file_of(frame: FrameType | None) -> str:
        filename = frame.f_code.co_filename if frame else ""
        if filename not in known:
            known[filename] = _name_here(filename)
        return known[filename]

    def note(frame: FrameType, event: str, _: object) -> None:  # of calls only: it answers None
        if frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # a function, not a class's body
            called = file_of(frame)
            if called:
                trace.calls.add((file_of(frame.f_back), called))
                if actor_has_block.is_set():
                    trace.carriers.add(called)

    threading.settrace(note)
    sys.settrace(note)
    try:
        yield
    finally:
        sys.settrace(None)
        threading.settrace(None)


def _name_here(filename: str) -> str:
    path = Path(filename).resolve()
    if not path.is_relative_to(ROOT) or path.relative_to(ROOT).parts[0] not in PACKAGES:
        return ""
    name = path.relative_to(ROOT).as_posix()
    return "" if "drawing" in name or "pictures" in name else name


def trace_of_a_match() -> Trace:
    """Matches two images, as the command line would, and says what ran."""
    import ray
    import ray.data

    import_everything()
    ray.init = ray.shutdown = lambda *_, **__: None  # type: ignore[assignment]
    ray.data.from_items = BlocksHere  # type: ignore[assignment]
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
