"""Job of the local cluster's test: each worker writes to its /tmp and to the bucket, then tells what it sees."""

import importlib.util
import json
import socket
import sys
from pathlib import Path

import ray
from pyarrow import fs

WORK, WORKERS = sys.argv[1], sys.argv[2:]


def write(worker: str) -> None:
    Path(f"/tmp/mark-{worker}").write_text(worker)
    files, folder = fs.FileSystem.from_uri(WORK)
    with files.open_output_stream(f"{folder}/mark-{worker}") as stream:
        stream.write(worker.encode())


def look() -> dict[str, object]:
    files, folder = fs.FileSystem.from_uri(WORK)
    return {
        "host": socket.gethostname(),
        "host_resolves_to": socket.gethostbyname(socket.gethostname()),
        "in_tmp": sorted(path.name for path in Path("/tmp").glob("mark-*")),
        "in_bucket": sorted(found.base_name for found in files.get_file_info(fs.FileSelector(folder))),
        "processes": sum(path.name.isdigit() for path in Path("/proc").iterdir()),
        "has_the_project": importlib.util.find_spec("dhpf") is not None,
    }


ray.init(log_to_driver=False)
for function in (write, look):
    task = ray.remote(num_cpus=1, max_retries=0)(function)
    arguments = {worker: [worker] if function is write else [] for worker in WORKERS}
    seen = ray.get([task.options(resources={worker: 0.1}).remote(*arguments[worker]) for worker in WORKERS])
print(f"SEEN {json.dumps(dict(zip(WORKERS, seen, strict=True)))}")
