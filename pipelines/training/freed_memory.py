"""What becomes of memory that a training step frees."""

from __future__ import annotations

import contextlib
import ctypes

_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE = 1 << 20


def return_freed_memory() -> None:
    """Makes this process give blocks of 1 MiB and more back to the system as soon as they are freed.

    glibc otherwise learns to keep blocks of up to 32 MiB in a heap, which the maps of layers, of all sizes, leave full
    of holes: a step's peak is then a fifth higher. Smaller blocks stay in the heap; taking them anew costs too much.
    """
    with contextlib.suppress(AttributeError):  # another C library than glibc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
