"""A file or folder of this machine that appears complete or not at all, and never in the place of another."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from dhpf.errors import InputError


@contextlib.contextmanager
def new_output(path: Path, require_absent: Callable[[Path], None]) -> Iterator[Path]:
    """Gives a path at which nothing is yet; what the block makes there has the wanted name once it ended without error.

    Args:
        path: the wanted name.
        require_absent: raises InputError where something is at a path; asked before and after the block.

    Raises:
        InputError: something is there already, or nothing can be made there.
    """
    require_absent(path)
    with contextlib.ExitStack() as scratch:
        with _refused(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent, ignore_cleanup_errors=True)
        begun = Path(scratch.enter_context(beside)) / path.name
        yield begun
        require_absent(path)
        with _refused(path):
            begun.rename(path)  # a folder replaces no file, and no folder but an empty one


@contextlib.contextmanager
def _refused(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be made ({error.strerror}); name another folder") from error
