from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from infra.local_cluster.cluster import CLUSTERS, Cluster, read_cluster
from infra.local_cluster.machine import HOSTS
from tests.infra.cluster_client import NAME, WheelClient, command
from tests.test_install import build, copied, with_wheel_alone


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster of two workers; what it leaves behind is looked at when it is taken down."""
    started = command("up")
    assert started.returncode == 0, started.stderr
    running = read_cluster(NAME)
    yield running
    stopped = command("down")
    assert stopped.returncode == 0, stopped.stderr
    assert traces_of(running) == []


def traces_of(cluster: Cluster) -> list[str]:
    """What is left of a cluster: namespaces, network cards, hosts files, its folder, processes."""
    listed = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    listed += subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    files = [str(file) for file in [*HOSTS.glob(f"{NAME}-*"), *CLUSTERS.glob(NAME)]]
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return re.findall(rf"\b{NAME}-\w+", listed) + files + [line for line in processes if cluster.network in line]


@pytest.fixture(scope="session")
def wheel_client(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> WheelClient:
    """A machine with the wheel alone, beside the cluster."""
    wheel = build(copied(tmp_path_factory.mktemp("source")), "wheel", tmp_path_factory.mktemp("dist"))
    dhpf = with_wheel_alone(tmp_path_factory.mktemp("environment"), wheel)
    return WheelClient(cluster, dhpf, tmp_path_factory.mktemp("home"))
