"""A server in a miner's place that misbehaves when it is asked to: only the standard library, it runs in a bare image.

It answers with its name and what it received. The header `X-First` says what the first server that gets the request
does instead; which one that was is known by a file that all of them see: `die` closes the connection, `503`, `500` and
`422` are answers, `wait` answers once `/shared/go` is there.
"""

import json
import os
import pathlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = os.environ["NAME"]
SHARED = pathlib.Path("/shared")


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Be ready; tell of models; count what came."""
        self._answer(200, {"served_by": NAME, "path": self.path})

    def do_POST(self) -> None:
        """Answer, or do what the first one is to do."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        wish = self.headers.get("X-First", "")
        with (SHARED / "seen").open("a") as seen:
            seen.write(f"{self.headers.get('X-Id', '')} {NAME}\n")
        if wish == "wait":
            while not (SHARED / "go").exists():
                threading.Event().wait(0.02)
        elif wish and self._is_first(self.headers["X-Id"]):
            if wish == "die":
                self.close_connection = True
                self.connection.close()
            else:
                self._answer(int(wish), {"error": {"message": wish}})
            return
        self._answer(200, {"served_by": NAME, "bytes": len(body)})

    def _is_first(self, request: str) -> bool:
        try:
            (SHARED / f"first-{request}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing."""


ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()  # noqa: S104  (in a container)
