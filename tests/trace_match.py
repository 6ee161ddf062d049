"""Lists the project's files that one follows to see one pair go from `dhpf run match-folder` to its Parquet row.

    python tests/trace_match.py

A folder of two images is matched in this process, driver and actor alike: Ray is not started, and Ray Data's one call
is replaced by a loop over the blocks. A file counts if one of its functions or methods ran. What runs when a module is
imported does not count (all modules are imported before), nor do methods that `dataclass` made, nor the pictures that
the run draws of its result: dhpf/drawing/ and every module called pictures.

Files that called a function of another file are marked: through these one reads on. The others are ends, whose
functions are often understood from their names where they are called.
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
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(os.environ.get("TRACED_TREE", Path(__file__).parents[1])).resolve()
PACKAGES = ("dhpf", "pipelines")


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
            found = self._matcher({name: np.array([value]) for name, value in item.items()})
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


@contextlib.contextmanager
def traced(calls: set[tuple[str, str]]) -> Iterator[None]:
    """Adds (file of the caller, file of the called) for each function of the project that runs, in all threads."""
    known: dict[str, str] = {}

    def file_of(frame: FrameType | None) -> str:
        filename = frame.f_code.co_filename if frame else ""
        if filename not in known:
            known[filename] = _name_here(filename)
        return known[filename]

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # a function, not a class's body
            called = file_of(frame)
            if called:
                calls.add((file_of(frame.f_back), called))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def _name_here(filename: str) -> str:
    path = Path(filename).resolve()
    if not path.is_relative_to(ROOT) or path.relative_to(ROOT).parts[0] not in PACKAGES:
        return ""
    name = path.relative_to(ROOT).as_posix()
    return "" if "drawing" in name or "pictures" in name else name


def followed_files() -> dict[str, bool]:
    """The files in alphabetical order, and whether they call functions of other files."""
    import ray
    import ray.data

    import_everything()
    ray.init = ray.shutdown = lambda *_, **__: None  # type: ignore[assignment]
    ray.data.from_items = BlocksHere  # type: ignore[assignment]
    in_dhpf = (ROOT / "dhpf" / "pipelines").exists()
    command = importlib.import_module("dhpf.pipelines.__main__" if in_dhpf else "pipelines.__main__")
    calls: set[tuple[str, str]] = set()
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()) as said:
        photos = Path(name) / "photos" / "kind"
        photos.mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        for side in ("source.png", "target.png"):
            Image.fromarray(pixels).resize((200, 150)).save(photos / side)
        arguments = ["run", "match-folder", "--file", str(ROOT / "workflows.yaml"), "--data", name]
        with traced(calls), contextlib.redirect_stdout(io.StringIO()):
            status = command.main([*arguments, "--work", f"{name}/work"])
        assert status == 0 and list(Path(name).rglob("part.parquet")), said.getvalue()
    callers = {caller for caller, called in calls if caller != called}
    return {file: file in callers for file in sorted({called for _, called in calls})}


if __name__ == "__main__":
    found = followed_files()
    for file, calls_others in found.items():
        print("->" if calls_others else "  ", file)
    print(f"{len(found)} files, {sum(found.values())} of them call functions of others")
