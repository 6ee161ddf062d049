"""A folder that appears complete or not at all, and never in the place of another."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dhpf.errors import InputError

READABLE = 0o755


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Gives a folder beside `path` to write into, which gets that name once the block has ended without an error.

    Raises:
        InputError: something is there already, or nothing can be made there.
    """
    require_absent(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        begun = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise InputError(f"{path}: cannot be made ({error.strerror}); name another folder") from error
    try:
        yield begun
        begun.chmod(READABLE)
        require_absent(path)
        _rename(begun, path)
    except BaseException:
        shutil.rmtree(begun, ignore_errors=True)
        raise


def require_absent(path: Path) -> None:
    """Raises InputError where something is at this path, be it a link that leads nowhere."""
    if os.path.lexists(path):
        raise InputError(f"{path}: is there already, and is left as it is; name another folder, or remove it first")


def _rename(begun: Path, path: Path) -> None:
    try:
        begun.rename(path)  # a folder replaces no file, and no folder but an empty one
    except OSError as error:
        raise InputError(f"{path}: cannot be made ({error.strerror}); name another folder") from error
