"""The local cluster, started for real: its machines share nothing, a client needs the token, and nothing is left."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from infra.local_cluster.cluster import Cluster, new_cluster
from infra.local_cluster.machine import Machine, MachineError
from tests.infra.cluster_client import ROOT, client, command, needs_root


def ray_job(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    ray = Path(sys.executable).with_name("ray")
    return subprocess.run(
        [ray, "job", *arguments], env=environment, capture_output=True, text=True, check=False, timeout=240
    )


def seen_from_nodes(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """What a job submitted from outside sees on each worker."""
    environment = client(cluster)
    script = Path(__file__).with_name("seen_from_a_node.py")
    entrypoint = ["python", script.name, environment["CLUSTER_WORK"], *(worker.name for worker in cluster.workers)]
    done = ray_job(environment, "submit", "--working-dir", str(script.parent), "--", *entrypoint)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"^SEEN (.*)$", done.stdout + done.stderr, re.M)
    assert found, done.stdout
    seen: dict[str, dict[str, Any]] = json.loads(found[1])
    return seen


@needs_root
@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.chaos
def test_workers_share_the_bucket_and_nothing_else(cluster: Cluster) -> None:
    seen = seen_from_nodes(cluster)
    assert {name: node["host"] for name, node in seen.items()} == {"worker1": "worker1", "worker2": "worker2"}
    for name, node in seen.items():
        assert node["in_tmp"] == [f"mark-{name}"]
        assert {"mark-worker1", "mark-worker2"} <= set(node["in_bucket"])
        assert node["host_resolves_to"] == "127.0.1.1"
        assert node["processes"] < 40
        assert not node["has_the_project"]


@needs_root
@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.chaos
def test_a_client_without_the_right_token_is_refused(cluster: Cluster) -> None:
    environment = client(cluster)
    address = f"{environment['RAY_API_SERVER_ADDRESS']}/api/jobs/"
    token = Path(environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    codes = [
        requests.get(address, headers=headers, timeout=10).status_code
        for headers in ({}, {"Authorization": "Bearer " + "0" * len(token)}, {"Authorization": f"Bearer {token}"})
    ]
    assert codes == [401, 403, 200]
    without = {name: value for name, value in environment.items() if name != "RAY_AUTH_TOKEN_PATH"}
    assert "AuthenticationError" in ray_job(without | {"RAY_AUTH_TOKEN": "0" * 64}, "list").stderr


@needs_root
@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.chaos
def test_secrets_are_closed_to_other_users(cluster: Cluster) -> None:
    files = [cluster.env_file, cluster.folder / "ray-token", cluster.folder / "cluster.json"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert cluster.folder.stat().st_mode & 0o777 == 0o700


@needs_root
@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.chaos
def test_the_tracking_server_keeps_what_it_is_told_in_the_bucket(cluster: Cluster) -> None:
    import mlflow

    server = mlflow.MlflowClient(client(cluster)["MLFLOW_TRACKING_URI"])
    run = server.create_run("0").info
    server.log_text(run.run_id, "hello", "greeting.txt")
    assert run.artifact_uri.startswith("mlflow-artifacts:")
    objects = subprocess.run(
        [sys.executable, "-c", LIST_ARTIFACTS], env=client(cluster), capture_output=True, text=True, check=True
    )
    assert f"{run.run_id}/artifacts/greeting.txt" in objects.stdout


LIST_ARTIFACTS = """
import os
from pyarrow import fs
files, _ = fs.FileSystem.from_uri(os.environ["CLUSTER_WORK"])
print([found.path for found in files.get_file_info(fs.FileSelector("dhpf/mlflow", recursive=True))])
"""


@needs_root
@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.chaos
def test_machines_are_cut_off_killed_and_come_back(cluster: Cluster) -> None:
    storage = client(cluster)["CLUSTER_WORK"].partition("endpoint_override=")[2].partition("&")[0]
    assert command("cut", "storage").returncode == 0
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://{storage}/", timeout=2)
    assert command("reconnect", "storage").returncode == 0
    assert requests.get(f"http://{storage}/", timeout=20).status_code == requests.codes.forbidden

    killed = cluster.machines["worker2"]
    before = node_ids(cluster)[killed.address]
    assert command("kill-node", "worker2").returncode == 0
    assert killed.pids() == [] and (killed.folder / "tmp" / "ray").is_dir()
    assert "stopped" in state(killed)
    assert command("start-node", "worker2").returncode == 0
    assert node_ids(cluster)[killed.address] != before
    assert "worker2 runs already" in command("start-node", "worker2").stderr
    assert command("restart-head").returncode == 0
    assert [" answers" in state(machine) for machine in cluster.workers] == [True, True]


def node_ids(cluster: Cluster) -> dict[str, str]:
    """Ray's id of each node that it holds for alive, by the node's address."""
    environment = client(cluster)
    token = Path(environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    nodes = requests.get(
        f"{environment['RAY_API_SERVER_ADDRESS']}/api/v0/nodes",
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    ).json()["data"]["result"]["result"]
    return {node["node_ip"]: node["node_id"] for node in nodes if node["state"] == "ALIVE"}


def state(machine: Machine) -> str:
    """The line about a machine that `status` prints."""
    deadline = time.monotonic() + 60
    while True:
        line = next(line for line in command("status").stdout.splitlines() if line.startswith(machine.name))
        if "does not" not in line or time.monotonic() > deadline:
            return line
        time.sleep(1)


@needs_root
@pytest.mark.parametrize("name", ["much-too-long", "toolong", "a b", ""])
def test_a_name_that_the_network_could_not_take_is_refused(name: str) -> None:
    with pytest.raises(MachineError, match="is no name for a cluster"):
        new_cluster(name, 2, 2)


def test_a_cluster_or_machine_that_is_not_there_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "infra.local_cluster", "status", "--name", "absent"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "error: there is no cluster 'absent'" in done.stderr
