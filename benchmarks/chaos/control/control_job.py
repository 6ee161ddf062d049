"""Job of two writers that are not exact, as they are often written; the storm has to show it of both.

Called with a name of WRITERS and a folder that all machines share. Each block's task writes ROWS rows, one by one;
blocks come until a file "enough" lies in the folder. When the driver is ended, the job is submitted again and goes on
in its own way.
"""

import itertools
import re
import sys
import time
import uuid
from pathlib import Path

import ray

ROWS, ROW_SECONDS, AT_ONCE = 10, 0.5, 4


def write_rows(path: Path, block: int) -> None:
    with path.open("w") as file:
        for row in range(ROWS):
            time.sleep(ROW_SECONDS)
            file.write(f"{block}-{row}\n")
            file.flush()


def skip_if_exists(folder: str, block: int) -> None:
    """Takes a file that is there for the whole result."""
    path = Path(folder, f"{block}.rows")
    if not path.exists():
        write_rows(path, block)


def unique_and_glob(folder: str, block: int) -> None:
    """Writes under a name that nobody else has; readers take all files."""
    write_rows(Path(folder, f"{block}-{uuid.uuid4().hex}.rows"), block)


def num_blocks(folder: str) -> int:
    """How many blocks were begun so far."""
    return 1 + max((int(re.split(r"\D", path.name)[0]) for path in Path(folder).glob("*.rows")), default=-1)


WRITERS = {writer.__name__: writer for writer in (skip_if_exists, unique_and_glob)}

if __name__ == "__main__":
    name, folder = sys.argv[1:]
    ray.init(log_to_driver=False)
    task = ray.remote(num_cpus=0.01, max_retries=-1, scheduling_strategy="SPREAD")(WRITERS[name])
    at_work: list[ray.ObjectRef[None]] = []
    for block in itertools.count():
        if block >= num_blocks(folder) and Path(folder, "enough").exists():
            break
        at_work.append(task.remote(folder, block))
        if len(at_work) == AT_ONCE:
            done, at_work = ray.wait(at_work, num_returns=1)
            ray.get(done)
    ray.get(at_work)
