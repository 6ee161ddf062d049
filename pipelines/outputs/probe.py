"""Tries at the start of a run whether a store chooses one of several writers, as commits need it."""

from __future__ import annotations

import uuid

from dhpf.errors import InputError
from dhpf.storage import Location


def require_one_winner(work: Location) -> None:
    """Puts an object twice, which must be refused the second time.

    Raises:
        InputError: the store takes it twice, or cannot be written.
    """
    place = work / ".probe" / uuid.uuid4().hex
    first, second = place.put_if_absent(b"first"), place.put_if_absent(b"second")
    content = place.read()
    place.delete()
    if not first or second or content != b"first":
        raise InputError(
            f"--work {work}: this store lets several writers win, so that results could be lost; use one with "
            "conditional writes (If-None-Match), such as Amazon S3, or a folder"
        )
