"""Addresses that cannot be joined; clusters that are joined: test_workflow.py."""

from __future__ import annotations

import ast
import contextlib
import os
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
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


@pytest.fixture
def ray_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a command sets is undone; temporary files lie in this folder."""
    for name in (*RAY_VARIABLES, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"dhpf-ray-token-{os.getuid()}" / "token"


RAY_VARIABLES = (
    *("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_BACKEND_LOG_LEVEL", "RAY_gcs_server_port_wait_time_s"),
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",
)


def test_a_private_clusters_token_is_its_owners_alone(ray_variables: Path) -> None:
    before = os.umask(0)
    try:
        set_ray_environment(None)
    finally:
        os.umask(before)
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(ray_variables) and os.environ["RAY_AUTH_MODE"] == "token"
    assert stat.S_IMODE(ray_variables.stat().st_mode) == 0o600
    assert stat.S_IMODE(ray_variables.parent.stat().st_mode) == 0o700
    token = ray_variables.read_text()
    assert len(token) == 64
    set_ray_environment(None)
    assert ray_variables.read_text() == token, "clusters of one user that run at once share it"
    ray_variables.write_text("\n")  # what a killed process or a full disk left
    set_ray_environment(None)
    assert len(ray_variables.read_text()) == 64


def test_nothing_is_set_for_a_cluster_that_is_joined(ray_variables: Path) -> None:
    set_ray_environment("10.0.0.1:6379")
    assert not set(RAY_VARIABLES) & set(os.environ) and not ray_variables.exists()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", None])
def test_what_is_no_ray_cluster_is_said_at_once(answer: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dhpf.pipelines.cluster.CONNECT_SECONDS", 1.0)
    monkeypatch.delenv("RAY_USE_TLS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as beside:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        if answer is not None:
            beside.submit(_answer_once, server, answer)
        said = "no Ray cluster answers there .*timed out" if answer is None else "what answers there is no Ray cluster"
        with pytest.raises(InputError, match=f"--address {address}: {said}"):
            require_joinable(address)


def _answer_once(server: socket.socket, answer: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(100)
        connection.sendall(answer)


PRIVATE = """
import logging, os, re, subprocess, sys
from pathlib import Path
logging.basicConfig(level=logging.WARNING)
from dhpf.pipelines.cluster import ray_cluster, set_ray_environment
from dhpf.storage import location_of
set_ray_environment(None)
with ray_cluster(None, 1, location_of(Path("w")), ""):
    import psutil, ray
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {
        found.laddr.ip
        for process in processes
        for found in process.net_connections("tcp")
        if found.status == psutil.CONN_LISTEN
    }
    print("processes", len(processes), "listening", sorted(listening))
    address = ray.get_runtime_context().gcs_address
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    join = f"import ray; ray.init(address={address!r}, logging_level=50)"
    refused = subprocess.run([sys.executable, "-c", join], env=variables, capture_output=True, text=True)
    print("without token", refused.returncode, "uthenticat" in refused.stderr)
    print("folder", ray._private.worker._global_node.get_session_dir_path())
children = [p for p in processes[1:] if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
print("left", psutil.wait_procs(children, timeout=20)[1])
"""


@pytest.mark.slow
def test_a_private_cluster_has_no_door_to_other_machines(tmp_path: Path) -> None:
    """Nor to other users: it asks for a token, and its sockets and logs lie in a folder of this user's.

    The folder for temporary files has a name that is too long for Ray's sockets.
    """
    temporary = tmp_path / ("long" * 20)
    temporary.mkdir()
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", PRIVATE],
        cwd=tmp_path,
        env=variables | {"TMPDIR": str(temporary), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    addresses = set(ast.literal_eval(said["processes"].split("listening ")[1]))
    assert addresses and addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, addresses
    assert said["without"] == "token 1 True"
    assert said["folder"].startswith(f"/tmp/dhpf-ray-{os.getuid()}/session_")
    assert said["left"] == "[]"
