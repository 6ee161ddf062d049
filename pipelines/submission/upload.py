"""Packs what a job needs of this machine, and nothing else: the packages and the workflow file."""

from __future__ import annotations

import shutil
from pathlib import Path

from dhpf.errors import InputError
from dhpf.pipelines.outputs.package_files import copy_package

UPLOADED_FILE = "workflows.yaml"
"""The workflow file's name in the folder that is uploaded."""

MOST_BYTES = 5_000_000
"""The packages have 0.7 MB; what is larger, holds something that does not belong there."""

NUM_NAMED = 5


def pack(workflow_file: Path, folder: Path) -> None:
    """Copies what a job needs into an empty folder, as real files where the packages have links.

    Raises:
        InputError: it is too large to be sent.
    """
    copy_package(folder)
    shutil.copyfile(workflow_file, folder / UPLOADED_FILE)
    _require_small(folder)


def said_size(folder: Path) -> str:
    """How many files and bytes are in a packed folder."""
    sizes = _sizes(folder)
    return f"{len(sizes)} files, {sum(sizes.values()) / 1e6:.2f} MB"


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file below a folder, the largest first."""
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def _require_small(folder: Path) -> None:
    sizes = _sizes(folder)
    whole = sum(sizes.values())
    if whole > MOST_BYTES:
        largest = ", ".join(f"{name} ({size / 1e6:.2f} MB)" for name, size in list(sizes.items())[:NUM_NAMED])
        raise InputError(
            f"a job's code may have {MOST_BYTES / 1e6:.0f} MB, and this has {whole / 1e6:.2f} MB; the largest: "
            f"{largest}; shorten the workflow file, or take what does not belong into the package out of it"
        )
