import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from infra.s3_server import free_ports
from tests.pipelines.submission.client import Client, Head

BIN = Path(sys.executable).parent


@pytest.fixture(scope="session")
def head(store_keys: dict[str, str]) -> Iterator[Head]:
    """A cluster of one machine, whose environment has the keys of S3 servers and nothing of the checkout."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        token = Path(folder) / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        gcs, dashboard, client, agent = free_ports(4)
        options = {
            "port": gcs,
            "node-ip-address": "127.0.0.2",  # 127.0.0.1 is replaced by the machine's own
            "dashboard-host": "127.0.0.1",
            "dashboard-port": dashboard,
            "dashboard-agent-listen-port": agent,
            "ray-client-server-port": client,
            "min-worker-port": 0,
            "max-worker-port": 0,
            "num-cpus": 6,
            "object-store-memory": 200_000_000,
            "temp-dir": folder,
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        left_out = ("PYTHONPATH", "RAY_ADDRESS", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_URI")
        environment = {key: value for key, value in os.environ.items() if key not in left_out}
        environment |= {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
        }
        log = Path(folder) / "head.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    BIN / "ray",
                    "start",
                    "--head",
                    "--block",
                    "--include-dashboard=true",
                    "--disable-usage-stats",
                    *words,
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )
        address = f"http://127.0.0.1:{dashboard}"
        try:
            _wait_until_it_takes_jobs(address, token.read_text(), process, log)
            yield Head(address, f"127.0.0.2:{gcs}", token, process)
        finally:
            _end(process)


def _wait_until_it_takes_jobs(address: str, token: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            headers = {"Authorization": f"Bearer {token}"}
            requests.get(f"{address}/api/jobs/", headers=headers, timeout=5).raise_for_status()
            return
        except requests.RequestException:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.5)


def _end(process: subprocess.Popen[bytes]) -> None:
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait(timeout=30)
    for child in children:
        if child.is_running():
            child.kill()
    psutil.wait_procs(children, timeout=30)


@pytest.fixture
def client(head: Head, tmp_path: Path) -> Client:
    """A machine with the cluster's token, and without the keys of any store."""
    home = tmp_path / "home"
    home.mkdir()
    return Client(head, home, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(head.token)})
