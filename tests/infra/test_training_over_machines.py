"""Training workers on several machines, each of whose own name leads to 127.0.1.1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dhpf.storage import location_of
from tests.infra.cluster_client import ended, needs_root

if TYPE_CHECKING:
    from pathlib import Path

    from tests.infra.cluster_client import WheelClient

SETTINGS = [
    "shard.sources.photo-warps={kind: photo_warps, splits: [train, val], options: {views: 2, keypoints: 6}}",
    *("search=null", "evaluate=null", "match=null", "promotion=null"),
    *("train.epochs=1", "train.batch_size=4", "train.gates_start=random", "train.max_failures=0"),
]


@needs_root
@pytest.mark.cluster
@pytest.mark.slow
def test_workers_on_two_machines_find_each_other(
    wheel_client: WheelClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = wheel_client.changed(
        tmp_path, "training/node_interface.py", "return _NodeInterfaceBackend", "return super().backend_cls"
    )
    done = ended(plain.submit("quickstart", "two", SETTINGS))
    assert done.returncode == 1, done.stderr
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, wheel_client.environment[variable])
    errors = location_of(wheel_client.work) / "two" / "errors"
    [traceback] = [(errors / entry.key).read().decode() for entry in errors.entries()]
    assert "127.0.1.1" in traceback and "Connection refused" in traceback

    done = ended(wheel_client.submit("quickstart", "two", SETTINGS))
    assert done.returncode == 0, done.stderr
    job = list(wheel_client.jobs("two"))[-1]
    assert sorted(wheel_client.machines_of("RayTrainWorker.run_train_fn", job)) == ["worker1", "worker2"]
    for worker in wheel_client.cluster.workers:
        assert not list((worker.folder / "tmp").glob("dhpf-maps-*/*")), "what was kept for the training is gone"
