"""A miner that says what a test wants: readiness, models, load, and answers token by token; no engine, no model."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


def served(name: str = "Tiny", **changes: object) -> dict[str, Any]:
    """Return an entry of `/v1/models` as a miner on a processor gives it."""
    details = {
        "sha256": "ab" * 32,
        "file_name": "tiny.gguf",
        "engine": "llama.cpp",
        "engine_reason": "",
        "quantization": "Q4_1",
        "context_tokens": 8192,
        "loaded": True,
        "hardware": {
            "gpu_layers": 0,
            "gpu_offload_active": False,
            "cells": 32768,
            "threads": 4,
            "why": ["no layer on a GPU: this build of llama.cpp finds none", "4 threads: as many as physical cores"],
        },
    }
    return {"id": name, "object": "model", "created": 1, "owned_by": "r3mes", "r3mes": {**details, **changes}}


@dataclass
class Script:
    """What it says. `tokens` wait for `released` from the second one on; `keys`: those that `/v1` wants."""

    ready: bool = True
    reason: str = "serves Tiny"
    models: list[dict[str, Any]] = field(default_factory=lambda: [served()])
    running: int = 0
    waiting: int = 0
    keys: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ("Paris", " is", " the", " capital", ".")
    finish: str = "stop"
    failure: tuple[int, dict[str, str], dict[str, Any]] | None = None
    breaks: dict[str, Any] | None = None
    released: threading.Event = field(default_factory=threading.Event)
    asked: list[dict[str, Any]] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)
    other: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)


class ScriptedMiner:
    """Serves a script on 127.0.0.1."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.script = Script()
        handler = type("Handler", (_Handler,), {"miner": self})
        self._server = ThreadingHTTPServer((host, port), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://{self._server.server_address[0]}:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.script.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    miner: ScriptedMiner
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        script = self.miner.script
        if self.path in script.other:
            script.other[self.path](self)
        elif self.path == "/readyz":
            self._json(200 if script.ready else 503, {"ready": script.ready, "reason": script.reason})
        elif self.path == "/metrics":
            lines = [
                f"r3mes_miner_requests_running {script.running}.0",
                f"r3mes_miner_requests_waiting {script.waiting}.0",
            ]
            self._answer(200, "text/plain", ("\n".join(lines) + "\n").encode())
        elif not self._is_authorised():
            self._json(401, _error("an API key is needed"))
        elif self.path == "/v1/models":
            self._json(200, {"object": "list", "data": script.models})
        else:
            self._json(404, _error("no such route"))

    def do_POST(self) -> None:
        script = self.miner.script
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._is_authorised():
            self._json(401, _error("an API key is needed"))
        elif script.failure is not None:
            status, headers, document = script.failure
            self._json(status, document, headers)
        else:
            script.asked.append(body)
            self._stream(script)

    def _stream(self, script: Script) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            for number, token in enumerate(script.tokens):
                if number:
                    while not script.released.wait(0.05):
                        self._event({"choices": []})  # finds out whether somebody listens
                self._event({"choices": [{"index": 0, "delta": {"content": token}, "finish_reason": None}]})
            if script.breaks is not None:
                self._event(script.breaks)
            else:
                self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": script.finish}]})
                self._event({"choices": [], "usage": {"completion_tokens": len(script.tokens)}})
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            script.gone.set()

    def _event(self, chunk: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        self.wfile.flush()

    def _is_authorised(self) -> bool:
        keys = self.miner.script.keys
        return not keys or self.headers.get("Authorization") in {f"Bearer {key}" for key in keys}

    def _json(self, status: int, document: object, headers: dict[str, str] | None = None) -> None:
        self._answer(status, "application/json", json.dumps(document).encode(), headers)

    def _answer(self, status: int, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
