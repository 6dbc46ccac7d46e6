"""The HTTP server in a thread of its own, so that signals belong to the main thread alone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from shared.errors import ConfigurationError
from shared.settings import ListenAddress

KEEP_ALIVE_SECONDS = 15  # longer than Prometheus' five, at which its next scrape met the end of its connection
_GRACE_SECONDS = 2


class ApiServer:
    """Binds at once (raises ConfigurationError when it cannot), serves after `start`, ends with `stop`."""

    def __init__(self, app: FastAPI, listen: ListenAddress) -> None:
        try:
            family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
            self._socket = socket.create_server((listen.host, listen.port), family=family, backlog=128)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {listen.host}:{listen.port}: {error.strerror or error}", next_step="set R3MES_LISTEN"
            ) from error
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="api", daemon=True)
        self._on_end: Callable[[], None] = lambda: None

    @property
    def port(self) -> int:
        """The port that was bound."""
        return int(self._socket.getsockname()[1])

    def start(self, on_end: Callable[[], None]) -> None:
        """Begin to answer; call `on_end` when the server has ended, for whatever reason."""
        self._on_end = on_end
        self._thread.start()

    def stop(self) -> None:
        """Stop answering; open event streams get a moment to end."""
        self._server.should_exit = True
        self._thread.join(_GRACE_SECONDS + 1)
        self._socket.close()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._on_end()
