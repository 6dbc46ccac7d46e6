"""A fast loopback origin, shaped like Hugging Face, that serves one file: for benchmarks and kill tests.

`/{owner}/{repo}/resolve/{revision}/{file}` answers 302 to an address on another port, as the CDN is another host than
the hub; digest, size and commit stand on that first answer alone. The bytes leave by sendfile in threads of this
process, so that the interpreter costs a few calls a range. `Behaviour` paces each connection, or all together, and
resets every n-th body in its middle.

Order of calls: `Origin(file)` → `start()` → `url`, `behave(...)`, `sent` → `stop()`; or as a context manager. Alone:
`python -m benchmarks.origin --file FILE` prints the URLs of hub and CDN; then `POST /control` takes a behaviour as JSON
and clears the counters, `GET /control` tells them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MIB = 1024 * 1024
_REQUEST = re.compile(rb"(?s)(GET|HEAD|POST) (\S+) HTTP/1\.1\r\n(.*)")
_RESOLVE = re.compile(r"/[^/]+/[^/]+/resolve/[^/]+/.+")
_RANGE = re.compile(rb"(?im)^range: *bytes=(\d+)-(\d*)\s*$")
_LENGTH = re.compile(rb"(?im)^content-length: *(\d+)\s*$")
_LONGEST_HEAD = 64 * 1024
_STEP_SECONDS = 0.02  # a paced body leaves in steps of this length, at most 1 MiB
_BURST_SECONDS = 0.05  # and makes up for at most this much lateness
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Bytes per second (None: no limit) and which bodies are reset in their middle (0: none)."""

    per_connection: float | None = None
    together: float | None = None
    reset_every: int = 0


class Bucket:
    """At most `rate` bytes per second over everyone who takes from it; None is no limit."""

    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        self._lock = threading.Lock()
        self._free_at = 0.0

    def take(self, count: int) -> None:
        """Return when `count` more bytes may leave."""
        if self.rate is None:
            return
        with self._lock:
            begin = max(self._free_at, time.monotonic() - _BURST_SECONDS)
            self._free_at = begin + count / self.rate
        time.sleep(max(0.0, begin - time.monotonic()))


class Origin:
    """Serves `file` under any name; `sha256` saves hashing it, `send_buffer` bounds what waits in a socket (bytes)."""

    def __init__(self, file: Path, *, sha256: str | None = None, send_buffer: int | None = None) -> None:
        self._file = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        self.path = file
        self.size = os.fstat(self._file).st_size
        self.sha256 = sha256 or file_digest(file)
        self._send_buffer = send_buffer
        self._listeners = [socket.create_server(("127.0.0.1", 0), backlog=64) for _ in ("hub", "cdn")]
        self.url, self.cdn_url = (f"http://127.0.0.1:{each.getsockname()[1]}" for each in self._listeners)
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self.behave(Behaviour())

    def behave(self, behaviour: Behaviour) -> None:
        """Behave so from the next request on, and begin to count anew."""
        with self._lock:
            self.behaviour = behaviour
            self.together = Bucket(behaviour.together)
            self.sent = self.requests = self.bodies = self.resets = 0

    @property
    def hosts(self) -> str:
        """The `host:port` of hub and CDN, separated by a comma."""
        return ",".join(url.removeprefix("http://") for url in (self.url, self.cdn_url))

    @property
    def counters(self) -> dict[str, int]:
        """Body bytes that left, requests, bodies begun, bodies reset, and connections that are open now."""
        with self._lock:
            return {
                "sent": self.sent,
                "requests": self.requests,
                "bodies": self.bodies,
                "resets": self.resets,
                "open": len(self._connections),
            }

    def start(self) -> None:
        """Begin to answer."""
        for listener in self._listeners:
            threading.Thread(target=self._accept, args=(listener,), name="origin", daemon=True).start()

    def stop(self) -> None:
        """Answer nobody any more and cut off who is connected."""
        for listener in self._listeners:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes accept
            listener.close()
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), name="connection", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        if self._send_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conversation = _Conversation(self, connection)
        try:
            while conversation.answer_one():
                pass
        except OSError:
            pass  # the client left in the middle
        finally:
            connection.close()
            with self._lock:
                self._connections.discard(connection)

    def begin_body(self) -> bool:
        """Count a body; tell whether it is one that is reset."""
        with self._lock:
            self.bodies += 1
            reset = bool(self.behaviour.reset_every) and self.bodies % self.behaviour.reset_every == 0
            self.resets += reset
            return reset

    def count(self, *, sent: int = 0, requests: int = 0) -> None:
        """Add to the counters."""
        with self._lock:
            self.sent += sent
            self.requests += requests

    @contextmanager
    def opened(self, start: int) -> Iterator[int]:
        """Yield a descriptor of the file that stands at `start`: its position tells what a failed sendfile sent."""
        descriptor = os.open(f"/proc/self/fd/{self._file}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.lseek(descriptor, start, os.SEEK_SET)
            yield descriptor
        finally:
            os.close(descriptor)


class _Conversation:
    """One connection: requests one after the other, kept alive."""

    def __init__(self, origin: Origin, connection: socket.socket) -> None:
        self._origin = origin
        self._socket = connection
        self._bucket = Bucket(origin.behaviour.per_connection)
        self._pending = b""

    def answer_one(self) -> bool:
        """Read a request and answer it; False when the connection has ended."""
        while b"\r\n\r\n" not in self._pending:
            data = self._socket.recv(_LONGEST_HEAD)
            if not data or len(self._pending) > _LONGEST_HEAD:
                return False
            self._pending += data
        head, _, self._pending = self._pending.partition(b"\r\n\r\n")
        match = _REQUEST.fullmatch(head + b"\r\n")
        if match is None:
            return False
        method, path, headers = match[1].decode(), match[2].decode().partition("?")[0], match[3]
        if path == "/control":
            self._control(method, headers)
            return True
        self._origin.count(requests=1)
        if _RESOLVE.fullmatch(path):
            self._redirect()
            return True
        if path.startswith("/cdn/"):
            return self._send_file(method, headers)
        self._head("404 Not Found", {"Content-Length": 0, "X-Error-Code": "EntryNotFound"})
        return True

    def _control(self, method: str, headers: bytes) -> None:
        if method == "POST":
            length = _LENGTH.search(headers)
            wanted = int(length[1]) if length else 0
            while len(self._pending) < wanted:
                self._pending += self._socket.recv(_LONGEST_HEAD)
            document, self._pending = self._pending[:wanted], self._pending[wanted:]
            self._origin.behave(Behaviour(**json.loads(document)))
        body = json.dumps({**self._origin.counters, **asdict(self._origin.behaviour)}).encode()
        self._head("200 OK", {"Content-Type": "application/json", "Content-Length": len(body)})
        self._socket.sendall(body)

    def _redirect(self) -> None:
        origin = self._origin
        facts = {"X-Linked-Etag": f'"{origin.sha256}"', "X-Linked-Size": origin.size, "X-Repo-Commit": COMMIT}
        location = f"{origin.cdn_url}/cdn/{origin.sha256}"
        self._head("302 Found", {"Location": location, "Accept-Ranges": "bytes", "Content-Length": 0, **facts})

    def _send_file(self, method: str, headers: bytes) -> bool:
        size = self._origin.size
        wanted = _RANGE.search(headers)
        start = int(wanted[1]) if wanted else 0
        end = min(int(wanted[2]) + 1, size) if wanted and wanted[2] else size
        if start >= end:
            self._head("416 Range Not Satisfiable", {"Content-Range": f"bytes */{size}", "Content-Length": 0})
            return True
        partial = {"Content-Range": f"bytes {start}-{end - 1}/{size}"} if wanted else {}
        self._head(
            "206 Partial Content" if wanted else "200 OK",
            {"Content-Type": "application/octet-stream", "Content-Length": end - start, "Accept-Ranges": "bytes"}
            | {"ETag": f'"cdn-{self._origin.sha256[:32]}"'}
            | partial,
            more=method == "GET",
        )
        if method == "HEAD":
            return True
        reset = self._origin.begin_body()
        self._send_bytes(start, start + (end - start) // 2 if reset else end)
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        return not reset

    def _send_bytes(self, start: int, end: int) -> None:
        rates = [rate for rate in (self._bucket.rate, self._origin.together.rate) if rate]
        step = min(MIB, max(16 * 1024, int(min(rates) * _STEP_SECONDS))) if rates else end - start
        with self._origin.opened(start) as file:
            try:
                while start < end:
                    count = min(step, end - start)
                    self._bucket.take(count)
                    self._origin.together.take(count)
                    while count:
                        sent = os.sendfile(self._socket.fileno(), file, None, count)
                        self._origin.count(sent=sent)
                        start, count = start + sent, count - sent
                        if not sent:  # the file became shorter
                            return
            finally:
                rest = os.lseek(file, 0, os.SEEK_CUR) - start  # what a failing call sent before it failed
                self._origin.count(sent=max(0, rest))

    def _head(self, status: str, headers: dict[str, object], *, more: bool = False) -> None:
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self._socket.sendall("\r\n".join(lines).encode(), socket.MSG_MORE if more else 0)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as hex; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve one file until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.origin", description=main.__doc__)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--sha256", help="saves hashing the file")
    options = parser.parse_args(arguments)
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before any thread, so that `sigwait` alone takes them
    with Origin(options.file, sha256=options.sha256) as origin:
        sys.stdout.write(f"{origin.url}\n{origin.cdn_url}\n")
        sys.stdout.flush()
        signal.sigwait(ends)
    return 0


if __name__ == "__main__":
    sys.exit(main())
