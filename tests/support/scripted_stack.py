"""A stack on loopback that says what a test wants said: status, events, miners, streamed answers; real HTTP.

It can go away and come back on its port. An answer can stop in the middle (`Hold`) until the test lets it go.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

DIGEST = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@dataclass
class Hold:
    """`reached` is set when the answer stands still; `release` lets it go on."""

    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        self.released.set()


class Exchange:
    """What a script answers to: `body` is the parsed request."""

    def __init__(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        self.handler = handler
        self.body = body

    def json(self, document: object, status: int = 200, **headers: str) -> None:
        data = json.dumps(document).encode()
        self.handler.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data))} | headers
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), value)
        self.handler.end_headers()
        self.handler.wfile.write(data)

    def begin_events(self) -> None:
        self.handler.send_response(200)
        self.handler.send_header("Content-Type", "text/event-stream")
        self.handler.send_header("Connection", "close")
        self.handler.close_connection = True
        self.handler.end_headers()

    def event(self, document: object) -> None:
        text = document if isinstance(document, str) else json.dumps(document)
        self.handler.wfile.write(f"data: {text}\n\n".encode())
        self.handler.wfile.flush()


Script = Callable[[Exchange], None]


def refuse(status: int, message: str, code: str | None = None, **headers: str) -> Script:
    """Answer with an error of OpenAI's shape."""
    document = {"error": {"message": message, "type": "x", "param": None, "code": code}}
    return lambda exchange: exchange.json(document, status, **headers)


def says(*pieces: str, finish: str | None = "stop", counted: bool = True, done: bool = True) -> Script:
    """Stream these pieces, as our miner does; not `counted`: as a server without usage."""

    def script(exchange: Exchange) -> None:
        exchange.begin_events()
        _pieces(exchange, pieces, finish)
        if counted:
            exchange.event({"choices": [], "usage": {"completion_tokens": 2 * len(pieces)}})
        if done:
            exchange.event("[DONE]")

    return script


def says_and_holds(hold: Hold, before: tuple[str, ...], after: tuple[str, ...]) -> Script:
    """Stream `before`, wait, then stream `after`; `hold.left` is set when the client has gone away meanwhile."""

    def script(exchange: Exchange) -> None:
        exchange.begin_events()
        _pieces(exchange, before, None)
        hold.reached.set()
        while not hold.released.wait(0.02):
            try:
                exchange.handler.wfile.write(b": still here\n\n")
                exchange.handler.wfile.flush()
            except OSError:
                hold.left.set()
                return
        _pieces(exchange, after, "stop")
        exchange.event("[DONE]")

    return script


def _pieces(exchange: Exchange, pieces: tuple[str, ...], finish: str | None) -> None:
    for piece in pieces:
        exchange.event({"choices": [{"delta": {"content": piece}, "finish_reason": None}], "usage": None})
    if finish:
        exchange.event({"choices": [{"delta": {}, "finish_reason": finish}]})


class ScriptedStack:
    """`scripts` answer the questions in turn (the last one stays); `status` is the document, `models` the names."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.status: dict[str, Any] | None = status_document()
        self.models: list[str] = ["Tiny"]
        self.models_script: Script | None = None
        self.scripts: list[Script] = [says("Hello", " there.")]
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.posts: list[str] = []
        self._tls = tls
        self._port = 0
        self._changed = threading.Condition()
        self._changes = 1
        self.looks_since_change = 0
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    def tell(self, **changes: object) -> None:
        """Change the status, and let an event say so."""
        with self._changed:
            self.status = {**(self.status or {}), **changes}
            self._changes += 1
            self.looks_since_change = 0
            self._changed.notify_all()

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self._port), type("Handler", (_Handler,), {"stack": self}))
        self._port = int(self._server.server_address[1])
        if self._tls is not None:
            self._server.socket = self._tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Go away: nobody listens, and event streams end."""
        if self._server is not None:
            server, self._server = self._server, None
            server.shutdown()
            server.server_close()
            with self._changed:
                self._changed.notify_all()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def answer(self, exchange: Exchange, path: str) -> None:
        if path == "/api/v1/status" and self.status is not None:
            exchange.json(self.status)
            self.looks_since_change += 1
        elif path == "/api/v1/events" and self.status is not None:
            self._events(exchange)
        elif path == "/v1/models" and self.models_script is not None:
            self.models_script(exchange)
        elif path == "/v1/models":
            exchange.json({"data": [{"id": name} for name in self.models]})
        elif path == "/v1/chat/completions":
            self.asked.append(exchange.body)
            self.headers.append({name.lower(): value for name, value in exchange.handler.headers.items()})
            script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
            script(exchange)
        else:
            exchange.json({"error": {"message": f"nothing at {path}", "code": "not_found"}}, 404)

    def _events(self, exchange: Exchange) -> None:
        server = self._server
        exchange.begin_events()
        seen = 0
        while self._server is server:
            with self._changed:
                if self._changes == seen and self._server is server:
                    self._changed.wait(1)
                seen = self._changes
            exchange.event({"changed": seen})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves in the middle is part of many tests."""


class _Handler(BaseHTTPRequestHandler):
    stack: ScriptedStack
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self.stack.answer(Exchange(self, {}), self.path.partition("?")[0])

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with suppress(BrokenPipeError, ConnectionResetError):
            self.stack.answer(Exchange(self, json.loads(raw or b"{}")), self.path.partition("?")[0])

    def log_message(self, *_: object) -> None:
        """Quiet."""


def model(**changes: object) -> dict[str, Any]:
    """A model as `/api/v1/status` tells of it: verified, with `changes`."""
    return {
        "sha256": DIGEST,
        "model_name": "Tiny",
        "file_name": "tiny.gguf",
        "state": "verified",
        "reason": None,
        "message": "",
        "source": "huggingface",
        "received_bytes": 98_800_000,
        "expected_bytes": 98_800_000,
        "hashed_bytes": 98_800_000,
        "bytes_per_second": None,
        "eta_seconds": None,
        "next_attempt_at": None,
        "verified_at": 1_700_000_000.0,
        "updated_at": 1_700_000_000.0,
        **changes,
    }


def miner(**changes: object) -> dict[str, Any]:
    """A miner as `/api/v1/status` tells of it: ready on the processor, with `changes`."""
    hardware = {"gpu_layers": 0, "gpu_offload_active": False, "threads": 8, "why": ["no GPU", "8 threads: the cores"]}
    served = {"engine": "llama.cpp", "context_tokens": 8192, "loaded": True, "hardware": hardware}
    return {
        "url": "http://10.0.0.7:8080",
        "ready": True,
        "reason": "",
        "models": [{"id": "Tiny", "r3mes": served}],
        "running": 2,
        "waiting": 0,
        **changes,
    }


def status_document(**changes: object) -> dict[str, Any]:
    """The whole document: one verified model, one miner, with `changes`."""
    return {
        "node": "local",
        "version": "0.1.0",
        "genesis_sha256": "3f2a9c41d0ab" + "0" * 52,
        "staged_genesis_sha256": None,
        "models": [model()],
        "miners": [miner()],
        "disk": {"free_bytes": 35_100_000_000, "total_bytes": 100_000_000_000},
        "queue": {"queued": 0, "started": 0},
        "redis_up": True,
        **changes,
    }
