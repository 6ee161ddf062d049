"""The folder of a gallery, which appears complete or not at all, and never in the place of another."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from dhpf.errors import InputError
from dhpf.pipelines.outputs.new_output import new_output

READABLE = 0o755


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Gives a folder to write into, which gets that name once the block has ended without an error.

    Raises:
        InputError: something is there already, or nothing can be made there.
    """
    with new_output(path, require_absent) as begun:
        begun.mkdir()
        yield begun
        begun.chmod(READABLE)


def require_absent(path: Path) -> None:
    """Raises InputError where something is at this path, be it a link that leads nowhere."""
    if os.path.lexists(path):
        raise InputError(f"{path}: is there already, and is left as it is; name another folder, or remove it first")
