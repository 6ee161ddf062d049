"""Joins a Ray cluster, or starts one on this machine."""

from __future__ import annotations

import logging
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dhpf.pipelines.config import Workflow
from dhpf.pipelines.progress import doing

CPUS_BESIDE_ACTORS = 2
"""CPUs kept free for Ray Data's own tasks, which otherwise wait for ever when its actors take all CPUs."""


def set_ray_environment(address: str | None, work: Path) -> None:
    """Sets the environment variables that Ray reads when it is imported; to be called before anything imports Ray.

    Args:
        address: of a cluster to join; None for a private one, which gets token authentication.
        work: folder that gets the private cluster's token.
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
    reserved = (config.reserved_cpus for config in workflow.stages.values())
    return math.ceil(max(reserved, default=1)) + CPUS_BESIDE_ACTORS


@contextmanager
def ray_cluster(address: str | None, min_cpus: int) -> Iterator[None]:
    """Joins the cluster at `address`, or starts a private one with at least `min_cpus` CPUs, for the block."""
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
        with doing(f"joining Ray at {address}"):
            ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def _token_file(work: Path) -> Path:
    path = (work / ".ray-token").resolve()
    work.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, secrets.token_hex(32).encode())
        os.close(descriptor)
    return path
