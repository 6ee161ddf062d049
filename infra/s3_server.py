"""An S3 server (SeaweedFS) on this machine, for tests and benchmarks."""

from __future__ import annotations

import contextlib
import ctypes
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pyarrow import fs

REGION = "us-east-1"

_PR_SET_PDEATHSIG = 1
"""Option of prctl(2): the signal that the kernel sends when the parent ends."""


@dataclass(frozen=True)
class Bucket:
    """A bucket of an S3 server on this machine, and the server's process.

    Attributes:
        name: of the bucket, perhaps followed by a slash and a folder in it.
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


@contextlib.contextmanager
def served_bucket(name: str, keys: Mapping[str, str], folder: Path) -> Iterator[Bucket]:
    """Serves a bucket until the block ends, to whoever has these keys; the environment must hold them, too.

    Args:
        keys: "accessKey" and "secretKey".
        folder: where the server keeps its files.
    """
    identity = {"name": "owner", "credentials": [dict(keys)], "actions": ["Admin", "Read", "Write", "List"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = [f"{part}.{port}" for part in ("master", "volume", "filer", "s3") for port in ("port", "port.grpc")]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    flags = [f"-{name}={port}" for name, port in ports.items()]
    weed = [str(Path(sys.executable).parent / "weed"), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    weed += [f"-dir={folder}", "-s3", f"-s3.config={folder / 's3.json'}", *flags]
    weed += ["-master.volumeSizeLimitMB=64", "-volume.max=20"]
    weed += ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # their ports are the same for every server
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(weed, stdout=log, stderr=log, preexec_fn=_end_with_parent)
    try:
        endpoint = f"127.0.0.1:{ports['s3.port']}"
        files = fs.S3FileSystem(endpoint_override=endpoint, scheme="http", region=REGION, allow_bucket_creation=True)
        _wait_for_bucket(files, name, server, folder / "log")
        yield Bucket(name, f"endpoint_override={endpoint}&scheme=http&region={REGION}", files, server)
    finally:
        server.kill()
        server.wait(timeout=30)


def _end_with_parent() -> None:
    """Has the kernel end this process with the one that started it, however that one ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def free_ports(number: int) -> list[int]:
    """Ports of this machine that nobody listens on now."""
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
