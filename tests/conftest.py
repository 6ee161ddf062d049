import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import torch
from pyarrow import fs

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # GPU kernels are interpreted; Triton looks once, when it is imported


@dataclass(frozen=True)
class Bucket:
    """A bucket of an S3 server on this machine, and the server's process."""

    name: str
    query: str
    files: fs.S3FileSystem
    server: subprocess.Popen[bytes]

    def uri(self, prefix: str) -> str:
        return f"s3://{self.name}/{quote(prefix)}?{self.query}"

    def put(self, key: str, data: bytes) -> None:
        with self.files.open_output_stream(f"{self.name}/{key}") as stream:
            stream.write(data)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """A bucket that only those with the environment's keys may read."""
    folder = tmp_path_factory.mktemp("s3")
    keys = {"accessKey": "reader", "secretKey": secrets.token_hex(16)}
    identity = {"name": "tests", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = [f"{part}.{port}" for part in ("master", "volume", "filer", "s3") for port in ("port", "port.grpc")]
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    flags = [f"-{name}={port}" for name, port in ports.items()]
    weed = [str(Path(sys.executable).parent / "weed"), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    weed += [f"-dir={folder}", "-s3", f"-s3.config={folder / 's3.json'}", *flags]
    weed += ["-master.volumeSizeLimitMB=64", "-volume.max=20"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(weed, stdout=log, stderr=log)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", keys["accessKey"])
        environment.setenv("AWS_SECRET_ACCESS_KEY", keys["secretKey"])
        endpoint = f"127.0.0.1:{ports['s3.port']}"
        files = fs.S3FileSystem(
            endpoint_override=endpoint, scheme="http", region="us-east-1", allow_bucket_creation=True
        )
        _wait_for_bucket(files, "photos", server, folder / "log")
        yield Bucket("photos", f"endpoint_override={endpoint}&scheme=http&region=us-east-1", files, server)
    server.kill()
    server.wait(timeout=30)


def _free_ports(number: int) -> list[int]:
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
