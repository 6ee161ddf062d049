from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dhpf.errors import InputError
from dhpf.pipelines.outputs import shared_work
from dhpf.pipelines.outputs.shared_work import require_one_winner, require_shared, sees
from dhpf.storage import FileLocation, location_of

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

    from tests.conftest import Bucket


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


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Cluster]:
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_AUTH_MODE", "disabled")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, logging_level=logging.WARNING, log_to_driver=False)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
def test_every_node_is_asked(two_nodes: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = location_of(tmp_path / "work")
    require_shared(work, "http://tracking:5000")
    assert list(work.entries(hidden=True)) == []
    with pytest.raises(InputError, match="SQLite is a file that one machine may write, and the cluster has 2 nodes"):
        require_shared(work, f"sqlite:///{tmp_path}/mlflow.db")

    def sees_only_here(marker: str) -> str:
        return "does not see what this machine has written there"

    monkeypatch.setattr(shared_work, "sees", sees_only_here)
    with pytest.raises(InputError, match=r"--work .*: node .* \([0-9.]+\) does not see .*; mount one folder"):
        require_shared(work, "http://tracking:5000")
