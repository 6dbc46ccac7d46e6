"""What HAProxy does for a browser, in a few lines: `/v1` to a miner, the rest to the downloader; it can be away."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class LittleGateway:
    """Listens on 127.0.0.1. `miner` None: no miner is ready. `prefix`: a path in front of everything, stripped here."""

    def __init__(self, downloader: str, miner: str | None, *, prefix: str = "") -> None:
        self.downloader, self.miner, self.prefix = downloader, miner, prefix
        self.requests: list[str] = []
        self._port = 0
        self._open: set[socket.socket | None] = set()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}{self.prefix}/"

    def start(self) -> None:
        """Listen, after the first time on the same port."""
        handler = type("Handler", (_Handler,), {"gateway": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections, and break off those that are open."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        self.break_off()

    def break_off(self) -> None:
        """End every answer that is under way."""
        for sock in filter(None, tuple(self._open)):
            with suppress(OSError):  # one that has ended by itself
                sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Handler(BaseHTTPRequestHandler):
    gateway: LittleGateway
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        gateway = self.gateway
        gateway.requests.append(f"{self.command} {self.path}")
        path = self.path.removeprefix(gateway.prefix)
        place = gateway.miner if path.startswith("/v1/") else gateway.downloader
        if path == self.path and gateway.prefix:
            self._say(404, "outside of the prefix")
        elif place is None:
            self._say(503, "no service is ready for this (yet)")
        else:
            self._pass_on(place, path)

    do_POST = do_GET  # noqa: N815 - the name that http.server calls

    def _pass_on(self, place: str, path: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection(urlsplit(place).netloc, timeout=60)
        sock = None
        try:
            connection.connect()
            sock = connection.sock
            self.gateway._open.add(sock)
            connection.request(self.command, path, body, {**dict(self.headers.items()), "Connection": "keep-alive"})
            answer = connection.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP and name.lower() not in {"date", "server"}:
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            while piece := answer.read1(65536):
                self.wfile.write(piece)
        except (OSError, http.client.HTTPException):
            pass  # one of the two has left
        finally:
            self.close_connection = True
            self.gateway._open.discard(sock)
            connection.close()

    def _say(self, status: int, message: str) -> None:
        body = json.dumps({"error": {"message": message, "type": "server_error", "param": None, "code": None}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""
