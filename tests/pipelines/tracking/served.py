"""A real MLflow server on this machine, for tests; it may be killed and started again."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil


@contextlib.contextmanager
def running_server(folder: Path, uri: str) -> Iterator[subprocess.Popen[bytes]]:
    """`mlflow server` on this machine, answering; stopped when the block ends."""
    host, _, port = uri.removeprefix("http://").partition(":")
    options = ["--host", host, "--port", port, "--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 's.db'}"]
    command = [sys.executable, "-m", "mlflow", "server", *options, "--artifacts-destination", str(folder / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # as many processes again
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=folder, env=environment)
    try:
        deadline = time.monotonic() + 300  # seconds on a machine at rest
        while not answers(f"{uri}/health"):
            assert server.poll() is None and time.monotonic() < deadline, (folder / "server.log").read_text()
            time.sleep(0.2)
        yield server
    finally:
        stop(server)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def stop(server: subprocess.Popen[bytes]) -> None:
    """Kills the server and its workers, by pid."""
    if server.poll() is not None:
        return
    processes = [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    server.wait(timeout=30)
    psutil.wait_procs(processes, timeout=30)
