"""Health and metrics for a process that has no HTTP of its own: `/healthz`, `/readyz`, `/metrics`, nothing else.

One daemon thread and the standard library's server: the answers are small, the clients are a prober and Prometheus.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from shared.errors import ConfigurationError
from shared.settings import ListenAddress

# A prober that says nothing for this long is cut off, so that idle connections hold no thread.
IDLE_SECONDS = 10

Readiness = Callable[[], tuple[bool, str]]


class ProcessServer:
    """Serves the three paths. `ready()` gives readiness and its reason; living is answering at all."""

    def __init__(self, listen: ListenAddress, *, ready: Readiness, registry: CollectorRegistry) -> None:
        handler = type("Handler", (_Handler,), {"ready": staticmethod(ready), "registry": registry})
        try:
            self._server = _server_class(listen.host)((listen.host, listen.port), handler)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {listen.host}:{listen.port}: {error.strerror}", next_step="set R3MES_LISTEN"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="process-server", daemon=True)

    @property
    def port(self) -> int:
        """The port that was bound."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and close the socket."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _server_class(host: str) -> type[ThreadingHTTPServer]:
    if ":" not in host:
        return ThreadingHTTPServer
    return type("Server6", (ThreadingHTTPServer,), {"address_family": socket.AF_INET6})


class _Handler(BaseHTTPRequestHandler):
    ready: Readiness
    registry: CollectorRegistry
    timeout = IDLE_SECONDS
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/healthz":
            self._answer_json(HTTPStatus.OK, {"status": "ok"})
        elif path == "/readyz":
            is_ready, reason = type(self).ready()
            status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer_json(status, {"ready": is_ready, "reason": reason})
        elif path == "/metrics":
            self._answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self.registry))
        else:
            self._answer_json(
                HTTPStatus.NOT_FOUND, {"error": {"message": f"no such path: {path}", "type": "not_found"}}
            )

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def _answer_json(self, status: HTTPStatus, document: object) -> None:
        self._answer(status, "application/json", json.dumps(document).encode())

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Probes are not worth a log line."""
