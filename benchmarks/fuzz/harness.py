"""Runs trials of a reader in processes of their own, and notes those that end, hang, or raise what they must not."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.fuzz.trial import FILE_BYTES, Watched, read_watched

LONGEST_READ_SECONDS = 20.0
"""A trial that is at one input for longer hangs."""

PATIENCE_SECONDS = 300.0
"""How long a trial may take to begin, and to end: on a busy machine, importing torch takes minutes."""


def fuzz(name: str, seed: int, seconds: float, keep: Path | None = None) -> dict[str, Any]:
    """Feeds a reader for so many seconds; a trial that ends early is followed by another.

    Args:
        keep: file that findings are added to, with their inputs.

    Returns:
        figures: how many inputs, kinds of findings with their numbers, highest memory in MB, slowest input in ms.
    """
    total, kinds = Watched(), dict[str, int]()
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        findings = Path(folder, "findings")
        while (left := deadline - time.monotonic()) > 0:
            ended, seen, data = _trial(name, seed, left, Path(folder, "shared"), findings)
            seed += 1
            total.count += seen.count
            total.slowest, total.memory = max(total.slowest, seen.slowest), max(total.memory, seen.memory)
            if ended:
                with findings.open("a") as file:
                    file.write(json.dumps({"kind": ended, "says": "", "input": data.hex()}) + "\n")
        lines = findings.read_text().splitlines() if findings.exists() else []
    for line in lines:
        kind = json.loads(line)["kind"]
        kinds[kind] = kinds.get(kind, 0) + 1
    if keep is not None and lines:
        with keep.open("a") as file:
            file.writelines(json.dumps({"reader": name, **json.loads(line)}) + "\n" for line in lines)
    memory, slowest = round(total.memory / 1024), round(total.slowest / 1000)
    return {"inputs": total.count, "findings": kinds, "highest_memory_mb": memory, "slowest_ms": slowest}


def _trial(name: str, seed: int, seconds: float, shared: Path, findings: Path) -> tuple[str, Watched, bytes]:
    """How a trial ended if not by itself, what it had done, and its last input."""
    shared.write_bytes(bytes(FILE_BYTES))
    words = [sys.executable, "-m", "benchmarks.fuzz.trial", name, str(seed), str(seconds), str(shared), str(findings)]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(words, stdout=said, stderr=said)
        hangs = _watch(process, shared)
        said.seek(0)
        last = said.read().decode(errors="replace")[-300:]
    seen, data = read_watched(shared.read_bytes())
    if hangs and not data:
        raise RuntimeError(f"{name}: the trial does not begin, or not end, within {PATIENCE_SECONDS:.0f} s")
    if hangs:
        return f"more than {LONGEST_READ_SECONDS:.0f} s", seen, data
    if process.returncode and not seen.count:
        raise RuntimeError(f"{name}: the trial did not begin: {last}")
    return f"process ended with {process.returncode}" if process.returncode else "", seen, data


def _watch(process: subprocess.Popen[bytes], shared: Path) -> bool:
    """Waits for a trial's end; ends it, and is true, when it is too long at one input."""
    before, since = -1, time.monotonic()
    while process.poll() is None:
        time.sleep(0.2)
        seen, data = read_watched(shared.read_bytes())
        if seen.count != before:
            before, since = seen.count, time.monotonic()
        elif time.monotonic() - since > (LONGEST_READ_SECONDS if data else PATIENCE_SECONDS):
            process.kill()
            process.wait()
            return True
    return False
