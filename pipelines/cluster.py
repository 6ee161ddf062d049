"""Joins a Ray cluster, or starts one on this machine."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from dhpf.errors import InputError
from dhpf.pipelines.capacity import demands_of, lacking
from dhpf.pipelines.config import StageConfig, Workflow
from dhpf.pipelines.outputs.shared_work import require_one_winner, require_shared
from dhpf.pipelines.progress import doing
from dhpf.storage import FileLocation, Location
from dhpf.storage.private_folder import private_folder

CONNECT_SECONDS = 10.0
"""How long a cluster's address may take to answer; Ray itself would wait for minutes without a word."""

START_SECONDS = 120
"""How long the first process of a private cluster may take to start."""

LONGEST_FOLDER = 40
"""Characters of the folder for temporary files: longer ones leave no room for Ray's sockets below it."""

_SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""An empty frame of HTTP/2's settings, of type 4: what client and server begin with."""

_log = logging.getLogger(__name__)


def set_ray_environment(address: str | None) -> None:
    """Sets the environment variables that Ray reads when it is imported; to be called before anything imports Ray.

    Args:
        address: of a cluster to join; None for a private one, which listens on the loopback alone and asks for a token.

    Raises:
        InputError: there is no place for the token.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", str(START_SECONDS))
        # Made for other systems: without it the processes of a private cluster listen on all interfaces.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(_token_file())


def needed_cpus(workflow: Workflow) -> int:
    """CPUs that the cluster must offer to the workflow's largest stage.

    On a private cluster these are logical: the machine may have fewer.
    """
    reserved = (config.processes[1] * config.resources.cpus for config in workflow.stages.values())
    return math.ceil(max(reserved, default=1))


@contextlib.contextmanager
def ray_cluster(
    address: str | None,
    min_cpus: int,
    work: Location,
    tracking_uri: str,
    stages: Mapping[str, StageConfig] = MappingProxyType({}),
) -> Iterator[None]:
    """Joins the cluster at `address`, or starts a private one with at least `min_cpus` CPUs, for the block.

    Args:
        stages: for each of these a cluster that is joined must have room.

    Raises:
        InputError: an address that cannot be joined from here, or where no cluster answers; or its nodes do not share
            the work folder, or have no room for a stage.
    """
    import ray

    ends = signal.getsignal(signal.SIGTERM)  # Ray sets its own; that of a command stays
    if address is None:
        with doing("starting Ray on this machine"):
            _start_private(max(min_cpus, os.cpu_count() or 1))
    else:
        require_joinable(address)
        if os.environ.get("RAY_AUTH_MODE") != "token":
            _log.warning(
                "--address %s: joined without a token, so whoever reaches the cluster can run anything on it, in your "
                "name; start it with RAY_AUTH_MODE=token, and set that and RAY_AUTH_TOKEN_PATH here",
                address,
            )
        with doing(f"joining Ray at {address}"):
            _join(address)
    if ends is signal.default_int_handler and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, ends)
    try:
        with doing("checking the work folder"):
            if address is None:
                require_one_winner(work)
            else:
                require_room(address, stages)
                require_shared(work, tracking_uri)
        yield
    finally:
        ray.shutdown()


def require_room(address: str, stages: Mapping[str, StageConfig]) -> None:
    """Refuses stages for which the cluster that this process has joined is too small; Ray would wait for ever.

    Args:
        address: of the cluster, for the message.

    Raises:
        InputError: see above.
    """
    import ray
    from ray._private.state import state

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    for lack in lacking(demands_of(stages), nodes, state.get_max_resources_from_cluster_config() or {}):
        raise InputError(f"--address {address}: {lack.what}: {lack.found}; {lack.remedy}")


def require_joinable(address: str) -> None:
    """Refuses what is no address of a cluster to join, and one where nothing answers.

    Raises:
        InputError: see above.
    """
    if "://" in address:
        raise InputError(
            f"--address {address}: dhpf run joins a cluster from one of its machines, by HOST:PORT or auto; from "
            "outside use dhpf submit --address http://HEAD:8265"
        )
    host, colon, port = address.rpartition(":")
    if not colon:
        if address not in ("auto", "local"):
            raise InputError(f"--address {address}: write HOST:PORT, such as 10.0.0.1:6379, or auto")
        return
    if not port.isdigit():
        raise InputError(f"--address {address}: {port!r} is no port; write HOST:PORT, such as 10.0.0.1:6379")
    try:
        with socket.create_connection((host, int(port)), CONNECT_SECONDS) as connection:
            begins = _first_bytes(connection)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--address {address}: no Ray cluster answers there ({error or 'nothing'}); start one by ray start --head, "
            "correct the address, or leave it out to run on this machine"
        ) from error
    if begins[3:4] != _SETTINGS[3:4]:
        raise InputError(
            f"--address {address}: what answers there is no Ray cluster; give the port that ray start --head said, "
            "6379 unless another was chosen"
        )


def _first_bytes(connection: socket.socket) -> bytes:
    """What a server says to a client that begins as Ray's do; nothing is asked where Ray encrypts."""
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return _SETTINGS
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _SETTINGS)
    return connection.recv(len(_SETTINGS))


def _start_private(cpus: int) -> None:
    """Starts a cluster of this process; a second time where a busy machine was too slow for Ray's patience.

    Raises:
        InputError: Ray does not start.
    """
    import ray

    folder = _sockets_folder()
    for is_last in (False, True):
        before = _children()
        try:
            with _short_names(folder):
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    include_dashboard=True,
                    logging_level=logging.WARNING,
                    log_to_driver=False,
                    _temp_dir=folder,
                )
            return
        except Exception as error:  # Ray raises Exception itself where its processes are too slow
            ray.shutdown()
            for child in set(_children()) - set(before):
                with contextlib.suppress(OSError):
                    os.kill(child, signal.SIGKILL)
            if is_last or "timed out" not in str(error):
                said = " ".join(str(error).split())[:200]
                raise InputError(
                    f"Ray does not start on this machine ({said}); look whether it has memory, and room in "
                    f"{folder or tempfile.gettempdir()} and /dev/shm; the same command goes on from here"
                ) from error


def _join(address: str) -> None:
    import ray

    try:
        ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"--address {address}: the cluster cannot be joined ({first}); join it from one of its machines, "
            "with its token in RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, and with the Ray version that it runs"
        ) from error


def _sockets_folder() -> str | None:
    """This user's own folder for Ray's sockets and logs; None where the user has named one for Ray."""
    if "RAY_TMPDIR" in os.environ:
        return None
    return str(private_folder("ray", "/tmp" if _is_long(tempfile.gettempdir()) else None))


@contextlib.contextmanager
def _short_names(folder: str | None) -> Iterator[None]:
    """Lets the processes that start within the block make their temporary files in a folder with a short name.

    Args:
        folder: that one; it is taken only where the system's is too long for sockets.
    """
    before = os.environ.get("TMPDIR")
    if folder is not None and _is_long(tempfile.gettempdir()):
        os.environ["TMPDIR"] = folder
    try:
        yield
    finally:
        if before is not None:
            os.environ["TMPDIR"] = before


def _is_long(folder: str) -> bool:
    return len(os.fsencode(folder)) > LONGEST_FOLDER


def _children() -> list[int]:
    """The processes that this one has started."""
    import psutil

    return [child.pid for child in psutil.Process().children(recursive=True)]


def _token_file() -> Path:
    """The token of this user's private clusters, in a file; one that a killed process left empty is filled."""
    place = FileLocation(private_folder("ray-token") / "token")
    token = secrets.token_hex(32).encode()
    if not place.put_if_absent(token) and not place.read().strip():
        place.put(token)
    place.path.chmod(0o600)
    return place.path
