"""Makes the C library return memory that a training step frees to the system, which lowers the peak."""

from __future__ import annotations

import contextlib
import ctypes

_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE = 1 << 20


def return_freed_memory() -> None:
    """Makes this process give blocks of 1 MiB and more back to the system as soon as they are freed.

    Otherwise glibc comes to keep freed blocks of up to 32 MiB in its heap, which feature maps of many sizes fragment: a
    step's peak is then a fifth higher. Smaller blocks stay in the heap, because asking the system for each is slow.
    """
    with contextlib.suppress(AttributeError):  # another C library than glibc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
