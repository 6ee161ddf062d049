"""Formats in which other tools read a run's correspondences: a module and a line of EXPORTS for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import dhpf.results
from dhpf.config import require_choice
from dhpf.errors import InputError
from dhpf.pipelines.outputs.exports import colmap, csv_lines, hdf5, npz
from dhpf.pipelines.outputs.exports.rows import Tally
from dhpf.pipelines.outputs.new_output import new_output
from dhpf.results import Results

EXPORTS: Mapping[str, Callable[[Results, Path], Tally]] = {
    "colmap": colmap.write,
    "csv": csv_lines.write,
    "hdf5": hdf5.write,
    "npz": npz.write,
}
"""What writes each format: of the results, to a path at which nothing is yet, a part of the table at a time."""


def export(run: str, kind: str, output: Path) -> Tally:
    """Writes the correspondences of a complete run in another format.

    The output has its name only once it is whole.

    Args:
        run: folder or s3:// URI, as for dhpf.results.open.
        kind: a name in EXPORTS.
        output: the file, or for a format of several files the folder.

    Raises:
        InputError: an unknown format, one whose package is not installed, a run without complete correspondences, or an
            output that is there already.
    """
    require_choice("--format", kind, EXPORTS)
    _require_new(output)  # said before a run is opened
    found = dhpf.results.open(run)
    if found.record.get("stage") != "match":
        raise InputError(f"results {found.folder}: written by stage {found.record.get('stage')!r}; give a match output")
    with new_output(output, _require_new) as unfinished:
        return EXPORTS[kind](found, unfinished)


def _require_new(output: Path) -> None:
    if output.exists() or output.is_symlink():
        raise InputError(f"--output: {output} is there already; remove it, or choose another name")
