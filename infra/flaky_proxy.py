"""A proxy before an S3 server that fails requests and spoils answers, as stores, networks and cables do.

Faults are drawn by a seed. What a store refuses or leaves unanswered may have been done all the same. Bodies are cut
and bits are flipped in the contents of objects only.
"""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Literal

PASSED_ON = {"content-length", "content-type", "content-range", "etag", "last-modified", "accept-ranges"}

Fault = Literal["refused", "done and refused", "stalled", "done and stalled", "cut", "flipped"]

PASSED, OF_BODIES = "passed", ("cut", "flipped")

BUSY: Mapping[Fault, float] = {"refused": 0.5, "done and refused": 0.5}
"""A store that is asked too often: of its refusals, half come after it has done what was asked."""


@dataclass
class Failures:
    """Which requests fail, and how.

    Attributes:
        shares: of all requests, that meet each fault.
        counts: how often each fault came so far.
    """

    shares: Mapping[Fault, float]
    counts: Counter[str] = field(default_factory=Counter)
    random: Random = field(default_factory=lambda: Random(0))
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def num_failed(self) -> int:
        """How many requests have failed so far."""
        return self.counts.total()

    def next(self, *, has_body: bool) -> str:
        """What happens to the next request: a fault, or "passed".

        Args:
            has_body: whether its answer may hold an object's content.
        """
        with self.lock:
            drawn = self.random.random()
            for fault, share in self.shares.items():
                drawn -= share
                if drawn < 0:
                    if fault in OF_BODIES and not has_body:
                        return PASSED
                    self.counts[fault] += 1
                    return fault
        return PASSED

    def flipped(self, content: bytes) -> bytes:
        """The same with one bit changed."""
        spoilt = bytearray(content)
        with self.lock:
            bit = self.random.randrange(8 * len(spoilt))
        spoilt[bit // 8] ^= 1 << bit % 8
        return bytes(spoilt)


def busy(share: float) -> Mapping[Fault, float]:
    """The faults of a store that refuses this share of the requests for now."""
    return {fault: share * part for fault, part in BUSY.items()}


@contextmanager
def flaky_proxy(endpoint: str, shares: Mapping[Fault, float]) -> Iterator[tuple[str, Failures]]:
    """A proxy's own endpoint, HOST:PORT, and what it lets fail of the requests to `endpoint`."""
    failures = Failures(shares)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fate = failures.next(has_body=self.command == "GET" and "list-type" not in self.path)
            if fate == "refused":
                return self.send(503, {}, b"<Error><Code>SlowDown</Code></Error>")
            if fate == "stalled":
                return self.stall()
            status, headers, content = self.passed_on(body)
            if fate == "done and refused":
                return self.send(500, {}, b"<Error><Code>InternalError</Code></Error>")
            if fate == "done and stalled":
                return self.stall()
            if fate == "flipped" and status < 300 and content:
                content = failures.flipped(content)
            return self.send(status, headers, content, cut=fate == "cut" and status < 300)

        def passed_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            upstream = http.client.HTTPConnection(endpoint, timeout=60)
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():  # the host's name among them, because it is signed
                upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            content = answer.read()
            upstream.close()
            return (
                answer.status,
                {name: value for name, value in answer.getheaders() if name.lower() in PASSED_ON},
                content,
            )

        def stall(self) -> None:
            """Leaves the client without an answer until the proxy ends."""
            failures.ended.wait()
            self.close_connection = True

        def send(self, status: int, headers: dict[str, str], content: bytes, *, cut: bool = False) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = cut

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

        def log_message(self, *words: object) -> None:
            """Nothing is logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}", failures
    failures.ended.set()
    server.shutdown()
    thread.join(timeout=30)
