"""A loopback origin that behaves like Hugging Face and serves one file: for `r3mes demo` and the container tests.

What the real one does and this one does, too: `/{owner}/{repo}/resolve/{revision}/{file}` answers 302 to a signed
address, and the digest (`X-Linked-Etag`), the size and the commit stand on that first answer alone; the address behind
it takes one Range, and 403 is what an unsigned request gets. `tamper` flips one bit of the bytes and leaves every
header right, so that only hashing finds it; `bytes_per_second` is shared by all connections.

Order of calls: `Origin(file)` → `start()` → `url` → `stop()`; or as a context manager. Alone:
`python -m launcher.origin --file model.gguf --port 9000`.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import re
import secrets
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

CHUNK_BYTES = 256 * 1024
STOP_POLL_SECONDS = 0.05
IDLE_SECONDS = 60  # a client that neither asks nor reads for this long is cut off
_RESOLVE = re.compile(r"/(?P<owner>[^/]+)/(?P<repo>[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class UnsatisfiableRangeError(Exception):
    """The range begins behind the last byte: 416."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the half-open `[start, end)` that a Range header asks for, or None for the whole file.

    What is not one well-formed byte range is ignored, as RFC 9110 says. Raises UnsatisfiableRangeError.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:  # the last n bytes
        if int(last) == 0:
            raise UnsatisfiableRangeError
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise UnsatisfiableRangeError
    return int(first), min(int(last) + 1, size) if last else size


def flip_bit(chunk: bytes, start: int, offset: int) -> bytes:
    """Return `chunk`, which begins at `start` of the file, with the lowest bit of the byte at `offset` flipped."""
    index = offset - start
    if not 0 <= index < len(chunk):
        return chunk
    return chunk[:index] + bytes([chunk[index] ^ 1]) + chunk[index + 1 :]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as hex; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Pace:
    """At most `bytes_per_second` over all connections together; None is no limit."""

    def __init__(self, bytes_per_second: float | None) -> None:
        self._rate = bytes_per_second
        self._lock = threading.Lock()
        self._free_at = 0.0

    def wait_for(self, count: int) -> None:
        """Return when `count` more bytes may be sent."""
        if self._rate is None:
            return
        with self._lock:
            begin = max(self._free_at, time.monotonic())
            self._free_at = begin + count / self._rate
        time.sleep(max(0.0, begin - time.monotonic()))


@dataclass(frozen=True, slots=True)
class _Content:
    """The one file that is served, under `name`."""

    path: Path
    name: str
    size: int
    sha256: str
    flipped_at: int | None

    @property
    def etag(self) -> str:
        """The CDN's own, which says nothing about the digest."""
        return f'"{hashlib.blake2b(self.sha256.encode(), digest_size=16).hexdigest()}"'

    @property
    def cdn_path(self) -> str:
        return f"/cdn/repos/{self.sha256[:2]}/{self.sha256[2:4]}/{self.sha256}"


class Origin:
    """Serves `file` under its own name, or `name`, in threads of this process; `bytes_served` counts the body bytes.

    `sha256` saves hashing the file here. Raises OSError when the file cannot be read or the port is taken.
    """

    def __init__(
        self,
        file: Path,
        *,
        name: str | None = None,
        sha256: str | None = None,
        address: tuple[str, int] = ("127.0.0.1", 0),
        tamper: bool = False,
        bytes_per_second: float | None = None,
    ) -> None:
        size = file.stat().st_size
        digest = sha256 or file_digest(file)
        self.content = _Content(file, name or file.name, size, digest, size // 2 if tamper else None)
        self.pace = Pace(bytes_per_second)
        self._key = secrets.token_bytes(16)
        self._served = 0
        self._served_lock = threading.Lock()
        self._server = _Server(address, type("Handler", (_Handler,), {"origin": self}))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(STOP_POLL_SECONDS,), name="origin", daemon=True
        )

    @property
    def url(self) -> str:
        """The endpoint, for `HF_ENDPOINT`."""
        host, port = self._server.server_address[:2]
        return f"http://{host if isinstance(host, str) else host.decode()}:{port}"

    @property
    def bytes_served(self) -> int:
        """Bytes of the file that left so far, over all answers."""
        return self._served

    def serve_as(self, name: str) -> None:
        """Serve the file under another name from now on."""
        self.content = replace(self.content, name=name)

    def count(self, sent: int) -> None:
        """Add to `bytes_served`."""
        with self._served_lock:
            self._served += sent

    def signature(self) -> str:
        """What the signed address carries."""
        return hmac.new(self._key, self.content.cdn_path.encode(), "sha256").hexdigest()

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering; connections that still run end with the process."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay quiet when a client leaves in the middle; anything else is shown."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # typeshed's union of sockets


class _Handler(BaseHTTPRequestHandler):
    origin: Origin
    timeout = IDLE_SECONDS
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        content = self.origin.content
        resolve = _RESOLVE.fullmatch(parts.path)
        if resolve and unquote(resolve["file"]) == content.name:
            self._redirect(resolve["revision"])
        elif parts.path == content.cdn_path:
            signature = parse_qs(parts.query).get("signature", [""])[0]
            if hmac.compare_digest(signature.encode(), self.origin.signature().encode()):
                self._serve()
            else:
                self._answer_json(HTTPStatus.FORBIDDEN, {"error": "the signature is missing or wrong"}, "AccessDenied")
        elif parts.path == "/healthz":
            self._answer_json(HTTPStatus.OK, {"status": "ok"})
        else:
            self._answer_json(HTTPStatus.NOT_FOUND, {"error": "Entry not found"}, "EntryNotFound")

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def _redirect(self, revision: str) -> None:
        content = self.origin.content
        commit = revision if _COMMIT.fullmatch(revision) else content.sha256[:40]
        location = f"{content.cdn_path}?signature={self.origin.signature()}"
        self._answer(
            HTTPStatus.FOUND,
            f"Found. Redirecting to {location}".encode(),
            {
                "Content-Type": "text/plain; charset=utf-8",
                "Location": location,
                "Accept-Ranges": "bytes",
                "X-Repo-Commit": commit,
                "X-Linked-Size": str(content.size),
                "X-Linked-Etag": f'"{content.sha256}"',
            },
        )

    def _serve(self) -> None:
        content = self.origin.content
        header = self.headers.get("Range")
        if (condition := self.headers.get("If-Range")) and condition != content.etag:
            header = None
        try:
            wanted = parse_range(header, content.size)
        except UnsatisfiableRangeError:
            self._answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"", {"Content-Range": f"bytes */{content.size}"})
            return
        start, end = wanted or (0, content.size)
        self.send_response(HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", content.etag)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{content.size}")
        self.end_headers()
        if self.command != "HEAD":
            self._send_bytes(start, end)

    def _send_bytes(self, start: int, end: int) -> None:
        content = self.origin.content
        with content.path.open("rb") as file:
            file.seek(start)
            while start < end:
                chunk = file.read(min(CHUNK_BYTES, end - start))
                if not chunk:  # the file became shorter: a short body is the only honest answer left
                    self.close_connection = True
                    return
                if content.flipped_at is not None:
                    chunk = flip_bit(chunk, start, content.flipped_at)
                self.origin.pace.wait_for(len(chunk))
                self.wfile.write(chunk)
                self.origin.count(len(chunk))
                start += len(chunk)

    def _answer_json(self, status: HTTPStatus, document: object, code: str = "") -> None:
        headers = {"Content-Type": "application/json; charset=utf-8"}
        if code:
            headers["X-Error-Code"] = code
        self._answer(status, json.dumps(document).encode(), headers)

    def _answer(self, status: HTTPStatus, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """A line a request says nothing here."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve one file until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m launcher.origin", description=main.__doc__)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--name", help="the file's name in the repository (default: its own)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one and prints it")
    parser.add_argument("--tamper", action="store_true", help="flip one bit of the bytes")
    parser.add_argument("--pace", type=float, help="bytes per second, over all connections")
    options = parser.parse_args(arguments)
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before any thread, so that `sigwait` alone takes them
    with Origin(
        options.file,
        name=options.name,
        address=(options.host, options.port),
        tamper=options.tamper,
        bytes_per_second=options.pace,
    ) as origin:
        sys.stdout.write(f"{origin.url}\n")
        sys.stdout.flush()
        signal.sigwait(ends)
    return 0


if __name__ == "__main__":
    sys.exit(main())
