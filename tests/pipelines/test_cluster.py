"""Addresses that cannot be joined; clusters that are joined: test_workflow.py."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time
from pathlib import Path

import pytest

from dhpf.errors import InputError
from dhpf.pipelines.cluster import ray_cluster, require_joinable, require_room, set_ray_environment
from dhpf.pipelines.workflow_file import PACKAGED_FILE, load_workflow
from dhpf.storage import location_of


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://head:8265", "from outside use dhpf submit --address http://HEAD:8265"),
        ("ray://head:10001", "from outside use dhpf submit"),
        ("head", "write HOST:PORT, such as 10.0.0.1:6379, or auto"),
        ("head:gcs", "'gcs' is no port"),
        ("127.0.0.1:99999", "no Ray cluster answers there"),
    ],
)
def test_an_address_of_another_form_is_refused_with_the_remedy(address: str, message: str) -> None:
    with pytest.raises(InputError, match=f"--address {address}: .*{message}"):
        require_joinable(address)


def test_a_dead_address_is_said_at_once(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"  # nobody listens
        started = time.monotonic()
        refused = pytest.raises(InputError, match=f"--address {address}: no Ray cluster answers there .*refused")
        with refused, ray_cluster(address, 1, location_of(tmp_path), ""):
            pass
    assert time.monotonic() - started < 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["train.num_workers=7"], "CPUs: 6, 7 asked by train; add nodes, or set fewer workers"),
        (["match.resources.gpus=1"], "GPUs: 0, 2 asked by match; add nodes"),
        (["train.num_workers=7", "train.min_workers=6"], None),
    ],
)
def test_a_cluster_without_room_for_a_stage_is_refused(
    ray_cluster: None, tmp_path: Path, settings: list[str], said: str | None
) -> None:
    stages = load_workflow(PACKAGED_FILE, "quickstart", settings, location_of(tmp_path)).stages
    with contextlib.nullcontext() if said is None else pytest.raises(InputError, match=f"--address HEAD:6379: {said}"):
        require_room("HEAD:6379", stages)


@pytest.mark.parametrize("address", ["auto", "local"])
def test_what_ray_finds_itself_is_left_to_it(address: str) -> None:
    require_joinable(address)


def test_a_private_clusters_token_is_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_BACKEND_LOG_LEVEL", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    for work in (str(tmp_path / "work"), "s3://bucket/work"):
        set_ray_environment(None, location_of(work))
        path = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        assert path.is_relative_to(tmp_path) and stat.S_IMODE(path.stat().st_mode) == 0o600
        assert len(path.read_text()) == 64 and os.environ["RAY_AUTH_MODE"] == "token"
