"""What runs on the machines of the local cluster: Ray's head and workers, the S3 server, the tracking server."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import requests
from pyarrow import fs

from infra.local_cluster.machine import Machine, MachineError

GCS_PORT, DASHBOARD_PORT, METRICS_PORT, S3_PORT, TRACKING_PORT = 6379, 8265, 8080, 8333, 5000
REGION = "us-east-1"
BUCKET = "dhpf"
MLFLOW_SERVICE = Path(__file__).with_name("serve_tracking.sh")
OBJECT_STORE_BYTES = 300_000_000


@dataclass(frozen=True)
class Secrets:
    """The keys of one cluster: Ray's token, and the key pair of its S3 server."""

    token: str
    access_key: str
    secret_key: str

    @property
    def s3(self) -> dict[str, str]:
        """The environment in which S3 clients find the key pair."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}

    def write_token(self, folder: Path) -> None:
        """Puts the token into a folder as Ray reads it, closed to other users."""
        file = folder / "ray-token"
        file.touch(mode=0o600)
        file.write_text(self.token)


def start_ray(machine: Machine, head: Machine, num_cpus: int, secrets: Secrets, *, with_s3_keys: bool = True) -> None:
    """Starts Ray's head on its own machine, or a worker anywhere else."""
    secrets.write_token(machine.folder)
    ray = [f"{sys.prefix}/bin/ray", "start", "--block", f"--node-ip-address={machine.address}", "--temp-dir=/tmp/ray"]
    ray += [f"--num-cpus={num_cpus}", f"--object-store-memory={OBJECT_STORE_BYTES}", "--disable-usage-stats"]
    ray += [f"--metrics-export-port={METRICS_PORT}", "--resources", json.dumps({machine.name: 1})]
    if machine == head:
        ray += [
            "--head",
            f"--port={GCS_PORT}",
            f"--dashboard-host={head.address}",
            f"--dashboard-port={DASHBOARD_PORT}",
        ]
    else:
        ray += [f"--address={head.address}:{GCS_PORT}"]
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/mnt/ray-token"}
    # By default workers give way to every other process; here all machines share a few cores.
    environment["RAY_worker_niceness"] = "0"
    # Started again when it ends, as a service manager does: when the head was lost, or did not answer in time.
    service = f"while true; do {shlex.join(ray)} || sleep 1; done"
    machine.start(["bash", "-c", service], environment | (secrets.s3 if with_s3_keys else {}))


def start_storage(machine: Machine, secrets: Secrets) -> None:
    """Starts the S3 server, with the key pair as its only one."""
    pair = {"accessKey": secrets.access_key, "secretKey": secrets.secret_key}
    identity = {"name": "cluster", "credentials": [pair], "actions": ["Admin", "Read", "Write", "List"]}
    config = machine.folder / "s3.json"
    config.touch(mode=0o600)
    config.write_text(json.dumps({"identities": [identity]}))
    (machine.folder / "objects").mkdir(exist_ok=True)
    weed = [f"{sys.prefix}/bin/weed", "-logtostderr", "server", f"-ip={machine.address}", "-ip.bind=0.0.0.0"]
    weed += ["-dir=/mnt/objects", "-master.volumeSizeLimitMB=64", "-volume.max=100"]
    weed += ["-s3", "-s3.config=/mnt/s3.json", f"-s3.port={S3_PORT}"]
    machine.start(weed, {})


def start_tracking(machine: Machine, storage: Machine, secrets: Secrets) -> None:
    """Starts the MLflow server, whose artifacts lie in the bucket."""
    environment = {"ADDRESS": machine.address, "PORT": str(TRACKING_PORT), "ARTIFACTS": f"s3://{BUCKET}/mlflow"}
    environment |= {"MLFLOW_S3_ENDPOINT_URL": f"http://{storage.address}:{S3_PORT}", "AWS_DEFAULT_REGION": REGION}
    environment |= {"GIT_PYTHON_REFRESH": "quiet"}
    # The script's text, because the project does not exist on the machine.
    machine.start(["bash", "-c", MLFLOW_SERVICE.read_text()], environment | secrets.s3)


def wait_for_nodes(head: Machine, secrets: Secrets, expected: set[str], seconds: float = 180) -> None:
    """Waits until the nodes at these addresses, and no others, are alive in Ray's eyes."""
    wait_until(lambda: alive_nodes(head, secrets) == expected, f"Ray nodes at {sorted(expected)}", head.log, seconds)


def alive_nodes(head: Machine, secrets: Secrets) -> set[str]:
    """The addresses of the nodes that Ray holds for alive; none where the head does not answer."""
    try:
        answer = requests.get(
            f"http://{head.address}:{DASHBOARD_PORT}/api/v0/nodes",
            headers={"Authorization": f"Bearer {secrets.token}"},
            timeout=10,
        )
    except requests.RequestException:
        return set()
    if not answer.ok:
        return set()
    nodes = answer.json()["data"]["result"]["result"]
    return {node["node_ip"] for node in nodes if node["state"] == "ALIVE"}


def wait_for_bucket(storage: Machine, secrets: Secrets, seconds: float = 120) -> None:
    """Waits for the S3 server, and makes the bucket."""
    endpoint = f"{storage.address}:{S3_PORT}"
    files = fs.S3FileSystem(
        access_key=secrets.access_key,
        secret_key=secrets.secret_key,
        endpoint_override=endpoint,
        scheme="http",
        region=REGION,
        allow_bucket_creation=True,
        connect_timeout=3,
        request_timeout=10,
    )

    def bucket_is_there() -> bool:
        try:
            files.create_dir(BUCKET)
            with files.open_output_stream(f"{BUCKET}/ready") as stream:  # a volume to write to takes longer
                stream.write(b"ready")
        except OSError:
            return False
        return True

    wait_until(bucket_is_there, f"the S3 server at {endpoint}", storage.log, seconds)


def wait_for_tracking(tracking: Machine, seconds: float = 180) -> None:
    """Waits until MLflow answers."""
    address = f"http://{tracking.address}:{TRACKING_PORT}"
    wait_until(lambda: tracking_answers(tracking), f"MLflow at {address}", tracking.log, seconds)


def storage_answers(storage: Machine) -> bool:
    """Whether the S3 server answers, be it with a refusal."""
    try:
        requests.get(f"http://{storage.address}:{S3_PORT}", timeout=5)
    except requests.RequestException:
        return False
    return True


def tracking_answers(tracking: Machine) -> bool:
    """Whether MLflow answers."""
    try:
        answer = requests.get(f"http://{tracking.address}:{TRACKING_PORT}/health", timeout=5)
    except requests.RequestException:
        return False
    return answer.ok


def wait_until(is_ready: Callable[[], bool], what: str, log: Path, seconds: float) -> None:
    """Asks until the answer is yes; raises `MachineError` with the log's end when the time is over."""
    deadline = time.monotonic() + seconds
    while not is_ready():
        if time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-2000:] if log.exists() else "no log"
            raise MachineError(f"{what}: not ready after {seconds:.0f} s. {log} ends with:\n{tail}")
        time.sleep(0.5)
