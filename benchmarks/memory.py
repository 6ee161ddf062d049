"""Measures how much memory work takes beyond what was in use before it, as Linux counts it for the process."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def extra_megabytes(work: Callable[[], object]) -> float:
    """Peak of the resident memory during `work` less what was resident before, in MB."""
    _give_back_freed_memory()
    before = _status("VmRSS")
    _CLEAR.write_text("5")  # the peak starts anew
    work()
    return (_status("VmHWM") - before) / 1e6


def resident_megabytes() -> float:
    """Resident memory now, in MB."""
    _give_back_freed_memory()
    return _status("VmRSS") / 1e6


def _give_back_freed_memory() -> None:
    """Freed memory that the allocator still holds would otherwise serve new work, which then seems to need none."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def _status(name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return float(found[1]) * 1024
