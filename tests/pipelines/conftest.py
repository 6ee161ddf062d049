import logging
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator

import psutil
import pytest


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """A private Ray cluster in this process, its files in a folder with a short name (sockets need one)."""
    with pytest.MonkeyPatch.context() as environment, tempfile.TemporaryDirectory(prefix="ray") as folder:
        environment.setenv("RAY_AUTH_MODE", "disabled")
        environment.delenv("RAY_ADDRESS", raising=False)
        import ray

        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            logging_level=logging.WARNING,
            log_to_driver=False,
            _temp_dir=folder,
        )
        yield
        ray.shutdown()


@pytest.fixture
def kill_tree() -> Callable[[subprocess.Popen[bytes]], None]:
    return _kill_tree


def _kill_tree(process: subprocess.Popen[bytes]) -> None:
    """The driver and all that it started, by pid: as when a machine loses power."""
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    for child in children:
        if child.is_running():
            child.kill()
    psutil.wait_procs(children, timeout=30)
