"""A proxy before an S3 server that answers some requests with 503, as stores do that are asked too often."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random

PASSED_ON = {"content-length", "content-type", "content-range", "etag", "last-modified", "accept-ranges"}


@dataclass
class Failures:
    """Which requests fail.

    Attributes:
        share: of the requests; half of these fail after the server has done what was asked.
        num_failed: how many have failed so far.
    """

    share: float
    num_failed: int = 0
    random: Random = field(default_factory=lambda: Random(0))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self) -> str:
        """What happens to the next request: "passed", "refused", or "done and refused"."""
        with self.lock:
            drawn = self.random.random()
            self.num_failed += drawn < self.share
        return "passed" if drawn >= self.share else "refused" if drawn < self.share / 2 else "done and refused"


@contextmanager
def flaky_proxy(endpoint: str, share: float) -> Iterator[tuple[str, Failures]]:
    """A proxy's own endpoint, HOST:PORT, and what it lets fail of the requests to `endpoint`."""
    failures = Failures(share)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fate = failures.next()
            if fate == "refused":
                return self.send(503, {}, b"<Error><Code>SlowDown</Code></Error>")
            upstream = http.client.HTTPConnection(endpoint, timeout=60)
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():  # the host's name among them, because it is signed
                upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            content = answer.read()
            upstream.close()
            if fate == "done and refused":
                return self.send(503, {}, b"<Error><Code>SlowDown</Code></Error>")
            headers = {name: value for name, value in answer.getheaders() if name.lower() in PASSED_ON}
            return self.send(answer.status, headers, content)

        def send(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

        def log_message(self, *words: object) -> None:
            """Nothing is logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}", failures
    server.shutdown()
    thread.join(timeout=30)
