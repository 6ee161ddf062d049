"""Process that feeds one reader with mutated inputs until its time is over; its parent watches it.

What it does stands in a file that both map into memory, so that the parent knows of a process that ended or hangs
which input it had, and how far it had come.
"""

from __future__ import annotations

import json
import mmap
import re
import resource
import struct
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.fuzz.mutations import MAX_BYTES, mutated
from benchmarks.fuzz.readers import READERS
from dhpf.errors import InputError

HEAD = struct.Struct("<QQQQ")
FILE_BYTES = HEAD.size + MAX_BYTES

EXTRA_BYTES = 2_000_000_000
"""Address space that reading may take beyond what the process has when it begins."""

MOST_IN_CORPUS = 400


@dataclass
class Watched:
    """What the parent sees of a trial: how many inputs, the longest time in microseconds, the memory in KiB."""

    count: int = 0
    slowest: int = 0
    memory: int = 0

    def write(self, memory_file: mmap.mmap, data: bytes) -> None:
        memory_file[: HEAD.size] = HEAD.pack(self.count, self.slowest, self.memory, len(data))
        memory_file[HEAD.size : HEAD.size + len(data)] = data


def read_watched(content: bytes) -> tuple[Watched, bytes]:
    """What a trial has written, and its last input."""
    count, slowest, memory, size = HEAD.unpack(content[: HEAD.size])
    return Watched(count, slowest, memory), content[HEAD.size : HEAD.size + size]


def run(name: str, seed: int, seconds: float, shared: Path, findings: Path) -> None:
    """Feeds a reader for so many seconds."""
    reader, random = READERS[name](), Random(seed)
    corpus, known, seen = list(reader.seeds), set[str](), Watched()
    with shared.open("r+b") as file, tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        memory_file = mmap.mmap(file.fileno(), FILE_BYTES)
        for data in reader.seeds:  # what is loaded late is loaded now, and the seeds are files that can be read
            reader.read(data, Path(folder))
        resource.setrlimit(resource.RLIMIT_AS, (_address_space() + EXTRA_BYTES,) * 2)
        base, deadline = _peak(), time.monotonic() + seconds
        while time.monotonic() < deadline:
            data = mutated(random, corpus)
            seen.count += 1
            seen.write(memory_file, data)
            began = time.perf_counter()
            outcome = _outcome(reader.read, data, Path(folder), findings)
            seen.slowest = max(seen.slowest, round(1e6 * (time.perf_counter() - began)))
            seen.memory = max(seen.memory, _peak() - base)
            if outcome not in known and len(corpus) < MOST_IN_CORPUS:  # another way through the reader
                known.add(outcome)
                corpus.append(data)
        seen.write(memory_file, b"")


def _outcome(read: object, data: bytes, folder: Path, findings: Path) -> str:
    """The kind of what came of an input; what must not come is noted."""
    assert callable(read)
    try:
        read(data, folder)
    except InputError as error:
        return re.sub(r"[^a-z ]|x\w*", "", str(error)[:160])
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        kind = f"{type(error).__name__} in {Path(where.filename).name}:{where.lineno}"
        with findings.open("a") as file:
            file.write(json.dumps({"kind": kind, "says": str(error)[:200], "input": data[:4000].hex()}) + "\n")
        return kind
    return "read"


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
