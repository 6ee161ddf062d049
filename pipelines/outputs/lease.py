"""A lease on a run's folder, by which jobs that do the same tell who of them drives it.

Outputs are exact however many drivers there are; a lease spares the second one its work. Each holder's lease has a
number one above the last one's, and the holder renews it while it lives. Whether it does is seen by watching, not by
comparing clocks, which differ between machines.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from dhpf.errors import InputError
from dhpf.manifest import damaged, find_json, sealed_json
from dhpf.storage import Location

JOB_VARIABLE = "DHPF_JOB"
"""Environment variable by which a job's driver knows the job's id."""

RENEWED_SECONDS = 5.0
"""Time between two renewals."""

GIVEN_UP_SECONDS = 20.0
"""A lease that is not renewed for so long has no holder any more."""

_REMEDY = "if no job drives the run, delete the file"

_FOLDER, _RENEWALS = "lease", "renewals"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lease:
    """Who drives a run.

    Attributes:
        job: the holder's id, NAME-DIGEST-NUMBER.
        host: where the holder's driver is.
        token: tells one attempt from every other.
    """

    job: str
    host: str
    token: str


@contextlib.contextmanager
def held_lease(folder: Location) -> Iterator[None]:
    """Holds the lease of a run's folder within the block; does nothing in a driver that is no job.

    Raises:
        InputError: another job drives the run.
    """
    job = os.environ.get(JOB_VARIABLE)
    if job is None:
        yield
        return
    number = _take(folder, Lease(job, platform.node(), uuid.uuid4().hex))
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(folder, number, ended), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        with _tolerant():
            for passed in range(1, number + 1):
                _place(folder, passed).delete()
                _renewals(folder, passed).delete()


def require_free(folder: Location, job: str) -> None:
    """Checks that a job may drive the run in a folder, or does already: such a job can be joined.

    Takes some seconds where an earlier lease has to be watched.

    Raises:
        InputError: another job drives the run.
    """
    lease = _last(folder)[1]
    if lease is None or lease.job != job:
        _free_after(folder, job)


def _free_after(folder: Location, job: str) -> int:
    """The number of the last lease, which has no holder any more, or is of an earlier attempt; 0 if there is none."""
    number, lease = _last(folder)
    if lease is not None and not _follows(job, lease.job) and _is_renewed(folder, number):
        raise InputError(
            f"{folder}: job {lease.job} on {lease.host} drives this run; wait for it, stop it by dhpf stop "
            f"{lease.job}, or give this run another --name"
        )
    return number


def _take(folder: Location, lease: Lease) -> int:
    while True:
        number = _free_after(folder, lease.job) + 1
        if _place(folder, number).put_if_absent(sealed_json(asdict(lease))):
            return number


def _last(folder: Location) -> tuple[int, Lease | None]:
    """The number of the last lease, and the lease; 0 and None if there is none."""
    keys = [entry.key for entry in (folder / _FOLDER).entries()]
    numbers = [int(key[:6]) for key in keys if re.fullmatch(r"[0-9]{6}\.json", key)]
    number = max(numbers, default=0)
    content = find_json(_place(folder, number), _REMEDY) if number else None
    if content is None:  # none, or its holder ended just now
        return number, None
    try:
        return number, Lease(**content)
    except TypeError as error:
        raise damaged(_place(folder, number), _REMEDY) from error


def _follows(job: str, earlier: str) -> bool:
    """Whether a job is a later attempt of the same: attempts are numbered when all earlier ones have ended."""
    (base, _, number), (earlier_base, _, earlier_number) = job.rpartition("-"), earlier.rpartition("-")
    return base == earlier_base and number.isdigit() and earlier_number.isdigit() and int(earlier_number) < int(number)


def _is_renewed(folder: Location, number: int) -> bool:
    """Watches a lease until it is renewed, or was not for long enough."""
    before, deadline = _renewals(folder, number).find(), time.monotonic() + GIVEN_UP_SECONDS
    while time.monotonic() < deadline:
        time.sleep(RENEWED_SECONDS / 5)
        if not _place(folder, number).exists():
            return False
        if _renewals(folder, number).find() != before:
            return True
    return False


def _renew(folder: Location, number: int, ended: threading.Event) -> None:
    renewals = 0
    while True:
        with _tolerant():
            renewals += 1
            _renewals(folder, number).put(str(renewals).encode())
            if _last(folder)[0] != number:
                _log.warning("%s: another job has taken this run over; both go on, each result is stored once", folder)
                return
        if ended.wait(RENEWED_SECONDS):
            return


@contextlib.contextmanager
def _tolerant() -> Iterator[None]:
    """A lease that cannot be renewed or removed costs another driver's work, not this one's."""
    try:
        yield
    except (InputError, OSError) as error:
        _log.warning("lease: %s", error)


def _place(folder: Location, number: int) -> Location:
    return folder / _FOLDER / f"{number:06}.json"


def _renewals(folder: Location, number: int) -> Location:
    return folder / _FOLDER / f"{number:06}.{_RENEWALS}"
