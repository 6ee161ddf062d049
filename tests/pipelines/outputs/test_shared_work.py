from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dhpf.errors import InputError
from dhpf.pipelines.outputs.shared_work import require_one_winner, sees
from dhpf.storage import FileLocation, location_of

if TYPE_CHECKING:
    from infra.s3_server import Bucket


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_a_store_that_chooses_one_writer_passes_and_keeps_nothing(kind: str, tmp_path: Path, bucket: Bucket) -> None:
    work = location_of(str(tmp_path) if kind == "folder" else bucket.uri("work"))
    require_one_winner(work)
    assert list(work.entries(hidden=True)) == []


class LastWriterWins(FileLocation):
    """A folder as a store without conditional writes shows it."""

    def __truediv__(self, key: str) -> FileLocation:
        return LastWriterWins(self.path / key)

    def put_if_absent(self, content: bytes) -> bool:
        self.put(content)
        return True


def test_a_store_that_lets_two_writers_win_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lets several writers win.*use one with conditional writes"):
        require_one_winner(LastWriterWins(tmp_path))


def test_a_node_says_what_it_does_not_see(tmp_path: Path, bucket: Bucket) -> None:
    marker = location_of(tmp_path / "marker")
    assert sees(str(marker)) == "does not see what this machine has written there"
    marker.put(b"1")
    assert sees(str(marker)) == ""
    refused = bucket.uri("x").replace("us-east-1", "eu-north-1")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        assert sees(refused).startswith("cannot read it: ") and "denies access" in sees(refused)


ASKING = """
import logging, sys
import ray
from dhpf.errors import InputError
from dhpf.pipelines.outputs import shared_work
from dhpf.storage import location_of

address, folder = sys.argv[1:]
ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
work = location_of(folder)

def said(tracking):
    try:
        shared_work.require_shared(work, tracking)
        return "shared"
    except InputError as error:
        return str(error)

print(said("http://tracking:5000"))
print(said("sqlite:///mlflow.db"))
nodes = ray.nodes()
ray.nodes = lambda: [node | {"NodeManagerHostname": f"machine-{n}"} for n, node in enumerate(nodes)]
print(said("sqlite:///mlflow.db"))

def sees_only_here(marker):
    return "does not see what this machine has written there"

shared_work.sees = sees_only_here
print(said("http://tracking:5000"))
"""


def test_every_node_is_asked(tmp_path: Path) -> None:
    """The driver is a process of its own, because other tests here have joined another cluster."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_AUTH_MODE", "disabled")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        cluster.add_node(num_cpus=1)
        work = tmp_path / "work"
        command = [sys.executable, "-c", ASKING, cluster.address, str(work)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        cluster.shutdown()
    assert done.returncode == 0, done.stderr
    seen, one_machine, several, unseen = done.stdout.splitlines()
    assert seen == one_machine == "shared", "of one machine's nodes SQLite serves all"
    assert "SQLite is a file that one machine may write, and the cluster has 2; start mlflow server" in several
    assert re.search(r"--work .*: node machine-0 \([0-9.]+\) does not see .*; mount one folder on all nodes", unseen)
    assert list(location_of(work).entries(hidden=True)) == []
