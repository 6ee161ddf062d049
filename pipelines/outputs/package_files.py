"""The files of the package that travel: with a job to the cluster, with a model to its server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import dhpf

NAMES = ("*.py", "py.typed", "workflows.yaml")
"""Nothing else travels."""


def copy_package(folder: Path, *, library_only: bool = False) -> None:
    """Copies the package into a folder, as real files where it has links: in a checkout dhpf/pipelines is one.

    Args:
        library_only: without dhpf.pipelines.
    """
    package = Path(dhpf.__path__[0])
    for path in _files(package):
        name = path.relative_to(package)
        if not (library_only and name.parts[0] == "pipelines"):
            copy = folder / "dhpf" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def _files(package: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(package, followlinks=True):
        yield from (Path(folder, name) for name in names if any(Path(name).match(wanted) for wanted in NAMES))
