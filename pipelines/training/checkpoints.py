"""The checkpoints of a training: which of them a training goes on from, whatever happened to it before.

Ray Train writes each checkpoint into a folder of its own. It trusts a note of its own on which are there, which a kill
in the wrong moment leaves cut off, and does not notice a flipped byte in a checkpoint. So a training goes on from the
newest checkpoint whose files have the digests that were written into it last, and if the newest is damaged, from the
one before: every one leads to the same weights.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dhpf.errors import InputError
from dhpf.manifest import Damaged
from dhpf.pipelines.training.state import FILES, PROGRESS, require_whole
from dhpf.storage import FileLocation, Location

RAY_RUN = "ray"
"""The name of Ray Train's run, and of its folder below that of the stage."""

KEPT = 2
"""Checkpoints that are kept."""

_PREFIX, _NOTE = "checkpoint_", "checkpoint_manager_snapshot.json"

_log = logging.getLogger(__name__)


def newest_whole(stage: Location) -> Location | None:
    """The newest checkpoint of the training in a stage's folder that is as it was written; None where there is none.

    Raises:
        InputError: there are some, and all are damaged.
    """
    damage: list[str] = []
    for name in _names(stage):
        place = stage / RAY_RUN / name
        if not (place / PROGRESS).exists():  # its writer was killed
            continue
        try:
            require_whole(place)
        except Damaged as error:
            damage.append(str(error))
            _log.warning("checkpoint %s; an earlier one is taken", error)
            continue
        return place
    if damage:
        raise InputError(
            f"training in {stage}: none of its {len(damage)} checkpoints is as it was written (the newest: "
            f"{damage[0]}); begin it again by --restart train"
        )
    return None


@contextlib.contextmanager
def on_disk(checkpoint: Location) -> Iterator[Path]:
    """A folder of this machine with the files of a checkpoint."""
    if isinstance(checkpoint, FileLocation):
        yield checkpoint.path
        return
    with tempfile.TemporaryDirectory() as name:
        for file in (*FILES, PROGRESS):
            (Path(name) / file).write_bytes((checkpoint / file).read())
        yield Path(name)


def make_ready(stage: Location) -> None:
    """Removes Ray's note, and what is older than the newest two whole checkpoints, before a training goes on.

    Newer ones stay even if they are not whole: another driver may be writing them.

    Raises:
        InputError: as `newest_whole`.
    """
    newest, names = newest_whole(stage), _names(stage)
    if newest is not None:
        for name in names[names.index(newest.name) + KEPT :]:
            (stage / RAY_RUN / name).delete_all()
    (stage / RAY_RUN / _NOTE).delete()


def _names(stage: Location) -> list[str]:
    """The folders of checkpoints, the newest first: their names are times."""
    tops = {entry.key.partition("/")[0] for entry in (stage / RAY_RUN).entries() if "/" in entry.key}
    return sorted((name for name in tops if name.startswith(_PREFIX)), reverse=True)
