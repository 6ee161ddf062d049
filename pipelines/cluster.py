"""Joins a Ray cluster, or starts one on this machine."""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from dhpf.errors import InputError
from dhpf.pipelines.capacity import demands_of, lacking
from dhpf.pipelines.config import StageConfig, Workflow
from dhpf.pipelines.outputs.shared_work import require_one_winner, require_shared
from dhpf.pipelines.progress import doing
from dhpf.storage import FileLocation, Location

CONNECT_SECONDS = 10.0
"""How long a cluster's address may take to answer; Ray itself would wait for minutes without a word."""


def set_ray_environment(address: str | None, work: Location) -> None:
    """Sets the environment variables that Ray reads when it is imported; to be called before anything imports Ray.

    Args:
        address: of a cluster to join; None for a private one, which gets token authentication.
        work: work folder; it gets the private cluster's token where it is a folder of this machine.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(_token_file(work))


def needed_cpus(workflow: Workflow) -> int:
    """CPUs that the cluster must offer to the workflow's largest stage.

    On a private cluster these are logical: the machine may have fewer.
    """
    reserved = (config.processes[1] * config.resources.cpus for config in workflow.stages.values())
    return math.ceil(max(reserved, default=1))


@contextmanager
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

    if address is None:
        cpus = max(min_cpus, os.cpu_count() or 1)
        with doing("starting Ray on this machine"):
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=True,
                logging_level=logging.WARNING,
                log_to_driver=False,
            )
    else:
        require_joinable(address)
        with doing(f"joining Ray at {address}"):
            try:
                ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
            except (ConnectionError, ValueError, RuntimeError) as error:
                first = str(error).strip().partition("\n")[0]
                raise InputError(
                    f"--address {address}: the cluster cannot be joined ({first}); join it from one of its machines, "
                    "with its token in RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, and with the Ray version that it runs"
                ) from error
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
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--address {address}: no Ray cluster answers there ({error}); start one by ray start --head, correct the "
            "address, or leave it out to run on this machine"
        ) from error


def _token_file(work: Location) -> Path:
    folder = work.path if isinstance(work, FileLocation) else Path(tempfile.gettempdir()) / f"dhpf-ray-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / ".ray-token").resolve()
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, secrets.token_hex(32).encode())
        os.close(descriptor)
    return path
