import http.server
import os
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from infra.s3_server import Bucket, served_bucket

# By default Ray's workers give way to every other process, and starve where other tests compute beside them.
os.environ.setdefault("RAY_worker_niceness", "0")
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # GPU kernels are interpreted; Triton looks once, when it is imported


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts files with many slow tests first, so that no process is left with a long file at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def store_keys() -> Iterator[dict[str, str]]:
    """Puts the keys that all S3 servers of the tests accept into the environment."""
    keys = {"accessKey": "reader", "secretKey": secrets.token_hex(16)}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", keys["accessKey"])
        environment.setenv("AWS_SECRET_ACCESS_KEY", keys["secretKey"])
        yield keys


@pytest.fixture(scope="session")
def _shared_bucket(store_keys: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with served_bucket("photos", store_keys, tmp_path_factory.mktemp("s3")) as served:
        yield served


@pytest.fixture
def bucket(_shared_bucket: Bucket, tmp_path: Path) -> Bucket:
    """A folder of a bucket that only the environment's keys open, on a server that other tests use, too."""
    return replace(_shared_bucket, name=f"{_shared_bucket.name}/{tmp_path.name}")


@pytest.fixture
def mortal_bucket(store_keys: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """A bucket on a server of its own, which the test may stop or kill."""
    with served_bucket("photos", store_keys, tmp_path_factory.mktemp("s3")) as served:
        yield served


@pytest.fixture
def foreign_server() -> Iterator[str]:
    """The address of a web server that knows nothing of Ray or MLflow."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(timeout=30)
