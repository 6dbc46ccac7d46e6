"""A scripted origin on loopback: real HTTP that is right, or wrong in exactly the way that a test is about.

Each path has a script, a function that answers one request. Every request is kept, with its headers and the body bytes
that left; connections are counted, also those that never ask for anything. `Hold` stops an answer after so many bytes
until the test lets it go, so that a test can act in the middle of a body without guessing times.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")
CHUNK = 64 * 1024
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Seen:
    """One request: what was asked, when (seconds, monotonic), and how many body bytes were sent."""

    method: str
    path: str
    headers: Mapping[str, str]
    sent: int = 0
    at: float = field(default_factory=time.monotonic)

    @property
    def range(self) -> tuple[int, int] | None:
        """The half-open range that was asked for."""
        match = _RANGE.fullmatch(self.headers.get("range", ""))
        return (int(match[1]), int(match[2]) + 1) if match else None


class Answer:
    """What a script writes to; `seen` is the request."""

    def __init__(self, handler: BaseHTTPRequestHandler, seen: Seen, closing: threading.Event) -> None:
        self.handler = handler
        self.seen = seen
        self.closing = closing

    def head(self, status: int, headers: Mapping[str, object] | None = None) -> None:
        """Send status and headers; a Content-Length that is not given ends the body with the connection."""
        names = {name.lower() for name in headers or {}}
        self.handler.send_response(status)
        for name, value in (headers or {}).items():
            self.handler.send_header(name, str(value))
        if not names & {"content-length", "transfer-encoding"}:
            self.handler.send_header("Connection", "close")
            self.handler.close_connection = True
        self.handler.end_headers()

    def body(self, data: bytes) -> None:
        """Send body bytes, unless it was a HEAD."""
        if self.seen.method == "HEAD":
            return
        for start in range(0, len(data), CHUNK):
            chunk = data[start : start + CHUNK]
            self.handler.wfile.write(chunk)
            self.seen.sent += len(chunk)

    def raw(self, data: bytes) -> None:
        """Send bytes as they are, in place of anything that HTTP would have; they count as sent."""
        self.handler.close_connection = True
        for start in range(0, len(data), CHUNK):
            chunk = data[start : start + CHUNK]
            self.handler.wfile.write(chunk)
            self.seen.sent += len(chunk)

    def cut(self) -> None:
        """End the connection, whatever was promised."""
        self.handler.wfile.flush()
        self.handler.close_connection = True

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self.handler.close_connection = True
        connection = self.handler.connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(connection.detach())  # a close() would wait for the handler's files

    def stall(self) -> None:
        """Send nothing more, and keep the connection, until the origin ends."""
        self.closing.wait()
        self.handler.close_connection = True

    @property
    def connection(self) -> int:
        """Which connection this is: the client's port."""
        return int(self.handler.client_address[1])


Script = Callable[[Answer], None]


@dataclass
class Hold:
    """Lets `after` bytes of all answers together through, then holds one answer until `release()`.

    `for_all`: every answer is held, so that exactly `after` bytes have left.
    """

    after: int
    for_all: bool = False
    reached: threading.Event = field(default_factory=threading.Event)
    _released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        self._released.set()

    def allows(self, sent: int, count: int) -> int:
        """Return how many of `count` bytes may leave now that `sent` have left."""
        is_held = sent < self.after <= sent + count or (self.for_all and sent + count > self.after)
        return self.after - sent if is_held and not self._released.is_set() else count

    def wait(self, closing: threading.Event) -> None:
        self.reached.set()
        while not self._released.wait(0.02) and not closing.is_set():
            pass


class ScriptedOrigin:
    """Serves scripts by path on 127.0.0.1; unknown paths are 404.

    `tls`: speak https with it. `send_buffer`: what the kernel may hold of an answer that nobody reads, in bytes, for a
    test that counts what left. A connection, counted from 1, that `accepts` refuses is closed at once.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, send_buffer: int | None = None) -> None:
        self.scripts: dict[str, Script] = {}
        self.requests: list[Seen] = []
        self.connections = 0
        self.accepts: Callable[[int], bool] = lambda _: True
        self.scheme = "https" if tls else "http"
        self._closing = threading.Event()
        handler = type("Handler", (_Handler,), {"origin": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._server.origin = self
        if send_buffer is not None:
            self._server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def host(self) -> str:
        """`host:port`, for R3MES_ALLOW_HTTP_SOURCES."""
        return f"127.0.0.1:{self.port}"

    def asked(self, path: str, method: str = "GET") -> list[Seen]:
        """Return the requests for a path, in order."""
        return [seen for seen in self.requests if seen.path == path and seen.method == method]

    def sent(self, path: str | None = None) -> int:
        """Count the body bytes that left, of one path or of all."""
        return sum(seen.sent for seen in self.requests if path in {None, seen.path})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    origin: ScriptedOrigin

    def verify_request(self, request: object, client_address: object) -> bool:  # noqa: ARG002 - the base's signature
        self.origin.connections += 1
        return self.origin.accepts(self.origin.connections)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves in the middle is part of many tests."""


class _Handler(BaseHTTPRequestHandler):
    origin: ScriptedOrigin
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        seen = Seen(self.command, path, {name.lower(): value for name, value in self.headers.items()})
        self.origin.requests.append(seen)
        script = self.origin.scripts.get(path, status(404))
        script(Answer(self, seen, self.origin._closing))

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Quiet."""


def status(code: int, headers: Mapping[str, object] | None = None, body: bytes = b"") -> Script:
    """Answer with a status and a small body."""

    def script(answer: Answer) -> None:
        answer.head(code, {"Content-Length": len(body), **(headers or {})})
        answer.body(body)

    return script


def redirect(to: str, headers: Mapping[str, object] | None = None, code: int = 302) -> Script:
    """Lead on to another address."""
    return status(code, {"Location": to, **(headers or {})})


def linked(data: bytes, **changes: object) -> dict[str, object]:
    """Return the headers with which Hugging Face tells of a file on its first answer."""
    return {
        "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"',
        "X-Linked-Size": len(data),
        "X-Repo-Commit": COMMIT,
        **changes,
    }


def ranged(data: bytes, *, hold: Hold | None = None, headers: Mapping[str, object] | None = None) -> Script:
    """Serve `data` rightly, with Range; `hold` stops in the middle."""
    count = _Counter()

    def script(answer: Answer) -> None:
        start, end = answer.seen.range or (0, len(data))
        end = min(end, len(data))
        extra = {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"} if answer.seen.range else {}
        answer.head(206 if extra else 200, {"Content-Length": end - start, **extra, **(headers or {})})
        _send(answer, data[start:end], hold, count)

    return script


def whole(data: bytes, *, hold: Hold | None = None, headers: Mapping[str, object] | None = None) -> Script:
    """Ignore every Range: 200 and the whole file."""
    count = _Counter()

    def script(answer: Answer) -> None:
        answer.head(200, {"Content-Length": len(data), **(headers or {})})
        _send(answer, data, hold, count)

    return script


def in_turn(*scripts: Script) -> Script:
    """Answer the first request by the first script, and so on; the last one stays."""
    left, lock = list(scripts), threading.Lock()

    def script(answer: Answer) -> None:
        with lock:
            now = left.pop(0) if len(left) > 1 else left[0]
        now(answer)

    return script


@dataclass
class _Counter:
    sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def _send(answer: Answer, data: bytes, hold: Hold | None, count: _Counter) -> None:
    if answer.seen.method == "HEAD":
        return
    while data:
        with count.lock:
            part = data if hold is None else data[: hold.allows(count.sent, len(data))]
            count.sent += len(part)
        answer.body(part)
        data = data[len(part) :]
        if data and hold is not None:
            hold.wait(answer.closing)
