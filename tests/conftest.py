import contextlib
import http.server
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import pytest
import torch
from pyarrow import fs

# By default Ray's workers give way to every other process, and starve where other tests compute beside them.
os.environ.setdefault("RAY_worker_niceness", "0")
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # GPU kernels are interpreted; Triton looks once, when it is imported


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts files with many slow tests first, so that no process is left with a long file at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@dataclass(frozen=True)
class Bucket:
    """A bucket of an S3 server on this machine, and the server's process.

    Attributes:
        name: of the bucket, followed by a slash and the folder in it that one test has for itself.
        query: the part of a URI after its question mark, which says where the server is.
    """

    name: str
    query: str
    files: fs.S3FileSystem
    server: subprocess.Popen[bytes]

    def uri(self, prefix: str) -> str:
        return f"s3://{self.name}/{quote(prefix)}?{self.query}"

    def put(self, key: str, data: bytes) -> None:
        with self.files.open_output_stream(f"{self.name}/{key}") as stream:
            stream.write(data)


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
    yield from _serve(store_keys, tmp_path_factory.mktemp("s3"))


@pytest.fixture
def bucket(_shared_bucket: Bucket, tmp_path: Path) -> Bucket:
    """A bucket that only the environment's keys open, on a server that other tests use, too."""
    return replace(_shared_bucket, name=f"{_shared_bucket.name}/{tmp_path.name}")


@pytest.fixture
def mortal_bucket(store_keys: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """A bucket on a server of its own, which the test may stop or kill."""
    yield from _serve(store_keys, tmp_path_factory.mktemp("s3"))


def _serve(keys: dict[str, str], folder: Path) -> Iterator[Bucket]:
    identity = {"name": "tests", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = [f"{part}.{port}" for part in ("master", "volume", "filer", "s3") for port in ("port", "port.grpc")]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    flags = [f"-{name}={port}" for name, port in ports.items()]
    weed = [str(Path(sys.executable).parent / "weed"), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    weed += [f"-dir={folder}", "-s3", f"-s3.config={folder / 's3.json'}", *flags]
    weed += ["-master.volumeSizeLimitMB=64", "-volume.max=20"]
    weed += ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # their ports are the same for every server
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(weed, stdout=log, stderr=log)
    endpoint = f"127.0.0.1:{ports['s3.port']}"
    files = fs.S3FileSystem(endpoint_override=endpoint, scheme="http", region="us-east-1", allow_bucket_creation=True)
    _wait_for_bucket(files, "photos", server, folder / "log")
    yield Bucket("photos", f"endpoint_override={endpoint}&scheme=http&region=us-east-1", files, server)
    server.kill()
    server.wait(timeout=30)


def free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in sockets]


def _wait_for_bucket(files: fs.S3FileSystem, name: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.time() + 60
    while True:
        try:
            files.create_dir(name)
            return
        except OSError:
            assert server.poll() is None and time.time() < deadline, log.read_text()[-2000:]
            time.sleep(0.3)


@pytest.fixture
def foreign_server() -> Iterator[str]:
    """The address of a web server that knows nothing of Ray or MLflow."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(timeout=30)
