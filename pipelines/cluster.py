"""Joining a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MIN_LOGICAL_CPUS = 4
"""Ray Data needs CPUs beside its actors; logical ones are enough on a machine that has fewer."""


@contextmanager
def ray_cluster(address: str | None, work: Path) -> Iterator[None]:
    """Connects to the cluster at `address`, or starts a private one with token authentication, for the block.

    Args:
        work: folder that gets the private cluster's token.
    """
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(_token_file(work))
    import ray

    options = {"logging_level": logging.WARNING, "log_to_driver": True}
    if address is None:
        cpus = max(MIN_LOGICAL_CPUS, os.cpu_count() or 1)
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, **options)
    else:
        ray.init(address=address, **options)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
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
