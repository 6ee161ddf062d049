"""A folder with a numpy file for each pair, a thousand to a folder: 000012/000012345.npz is pair number 12345."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dhpf.pipelines.outputs.exports.rows import Tally
from dhpf.pipelines.outputs.tables import MATCHED, layers_of_mask, points_of
from dhpf.results import Results

PER_FOLDER = 1000

_LISTS = {"confidence": np.float32, "transferred_valid": np.bool_}
_POINTS = ("source_points", "target_points", "given_points", "transferred_points", "flow")


def write(found: Results, path: Path) -> Tally:
    """Writes the folder.

    Raises:
        InputError: a part is damaged.
    """
    path.mkdir()
    tally = Tally()
    for row in found:
        place = path / f"{row['number'] // PER_FOLDER:06}" / f"{row['number']:09}.npz"
        place.parent.mkdir(exist_ok=True)
        np.savez(place, allow_pickle=False, **_arrays(row))
        tally.add(len(row["source_points"] or ()) if row["status"] == MATCHED else 0)
    return tally


def _arrays(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of a row as arrays; a column that the row does not have is left out."""
    arrays = {name: np.array(value) for name, value in row.items() if value is not None}
    arrays |= {name: points_of(row[name]) for name in _POINTS if row[name] is not None}
    arrays |= {name: np.array(row[name], dtype=kind) for name, kind in _LISTS.items() if row[name] is not None}
    return arrays | {"layers": np.array(layers_of_mask(row["layers"]), dtype=np.int64)}
