"""Looks at one machine: whether a stage of a workflow could run there."""

from __future__ import annotations

import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dhpf.config import located_weights
from dhpf.errors import InputError
from dhpf.pipelines.outputs.code_version import code_version
from dhpf.pipelines.outputs.shared_work import require_one_winner
from dhpf.pipelines.submission.examination import Check, Examination, NodeReport
from dhpf.storage import FileLocation, Location, location_of

LEAST_DISK = 2_000_000_000
"""Bytes that a machine needs for Ray's files, and for copies of shards and models."""

LEAST_SHARED_MEMORY = 250_000_000
"""Bytes of /dev/shm, through which Ray and torch hand data from one process to another; a container has 64 MB."""

NOT_NEEDED = ("tracking",)
"""Checks without which a run can begin: what MLflow misses stays in the run's journal."""

_SHARED_MEMORY = Path("/dev/shm")

Looked = tuple[bool, str]
"""Whether it is as it should be, and what was seen."""


def examine_machine(wanted: Examination, address: str | None = None) -> NodeReport:
    """Looks at the machine on which this runs.

    Args:
        address: of the machine; None for that of its name.
    """
    name = socket.gethostname()
    checks = [_looked(what, remedy, look) for what, remedy, look in _checks(wanted)]
    own = address or _address_of(name)
    return NodeReport(f"{name} ({own})", time.time(), checks)


def _checks(wanted: Examination) -> Iterator[tuple[str, str, Callable[[], Looked]]]:
    """(what is looked at, what to do if it is not as it should be, how to look)."""
    yield "python", "", lambda: (True, platform.python_version())
    yield "name", "", lambda: (True, f"{socket.gethostname()} is {_address_of(socket.gethostname())}")
    yield (
        "code",
        "another dhpf is imported than the one that was sent; remove it from the machine's environment or PYTHONPATH",
        lambda: (code_version() == wanted.code, code_version()),
    )
    if wanted.work is not None:
        work = location_of(wanted.work)
        remedy = "give the machine credentials that may read and write there, and a way to the store"
        yield "work", remedy, lambda: _work(work)
    if wanted.data is not None:
        data = location_of(wanted.data)
        yield (
            "data",
            "mount the data folder at this path on every machine, or give --data s3://...",
            lambda: _data(data),
        )
    if wanted.weights:
        remedy = "install the weights on the machine, name a file that is there, or let the machine fetch them"
        yield "weights", remedy, lambda: _weights(wanted)
    tracking = wanted.tracking
    if tracking is not None:
        remedy = (
            "start mlflow server with an artifact store, and let every machine reach it; a run goes on without it, and "
            "dhpf track sync fills in what it missed"
        )
        yield "tracking", remedy, lambda: _tracking(tracking)
    yield "disk", f"free some of it, or set TMPDIR to a larger disk; {LEAST_DISK / 1e9:g} GB are needed", _disk
    yield "/dev/shm", "start the container with more shared memory, such as --shm-size=2g", _shared_memory


def _looked(what: str, remedy: str, look: Callable[[], Looked]) -> Check:
    try:
        ok, found = look()
    except (InputError, OSError) as error:
        ok, found = False, str(error)
    return Check(what, ok, found, remedy, needed=what not in NOT_NEEDED)


def _work(work: Location) -> Looked:
    begun = time.monotonic()
    require_one_winner(work)
    return True, f"{work}: written once of two times and read back in {time.monotonic() - begun:.2f} s"


def _data(data: Location) -> Looked:
    if isinstance(data, FileLocation):
        return data.path.is_dir(), f"{data}: {'a folder' if data.path.is_dir() else 'no such folder'}"
    data.size()  # an InputError where the store denies access or does not answer
    return True, str(data)


def _weights(wanted: Examination) -> Looked:
    from dhpf.model.backbone import published_weights

    for backbone, weights in wanted.weights:
        if weights is None:
            published_weights(backbone)
        else:
            located_weights(weights)
    return True, ", ".join(f"{backbone}{f' from {weights}' if weights else ''}" for backbone, weights in wanted.weights)


def _tracking(uri: str) -> Looked:
    from dhpf.pipelines.tracking.reachable import require_reachable

    return True, require_reachable(uri)


def _disk() -> Looked:
    disk = shutil.disk_usage(tempfile.gettempdir())
    return (
        disk.free >= LEAST_DISK,
        f"{disk.free / 1e9:.1f} of {disk.total / 1e9:.1f} GB free in {tempfile.gettempdir()}",
    )


def _shared_memory() -> Looked:
    if not _SHARED_MEMORY.is_dir():
        return False, "none"
    disk = shutil.disk_usage(_SHARED_MEMORY)
    return disk.total >= LEAST_SHARED_MEMORY, f"{disk.free / 1e9:.1f} of {disk.total / 1e9:.1f} GB free"


def _address_of(name: str) -> str:
    try:
        return socket.gethostbyname(name)
    except OSError:
        return "an unknown address"
