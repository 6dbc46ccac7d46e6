"""Questions to one address over HTTP: no proxy, no redirect, bounded bytes, and one deadline for all of them."""

from __future__ import annotations

import http.client
import io
import os
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from services.downloader.miners.places import Address
from shared.version import __version__

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_ANSWER_BYTES = 1024 * 1024
_HEADERS = {"User-Agent": f"r3mes-status/{__version__}", "Accept-Encoding": "identity"}


class NoAnswerError(Exception):
    """Nothing usable came; the message says why, for a person."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of any status."""

    status: int
    body: bytes


class Visit:
    """One connection to an address for a few questions, all of them within `seconds`."""

    def __init__(self, address: Address, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self._connection = _Connection(address, deadline)
        self._connection.response_class = partial(_Response, deadline)  # type: ignore[assignment]  # any callable does

    def get(self, path: str, headers: Mapping[str, str | bytes] | None = None) -> Answer:
        """Ask for a path; raises NoAnswerError."""
        try:
            self._connection.request("GET", path, headers={**_HEADERS, **(headers or {})})
            response = self._connection.getresponse()
            body = response.read(MAX_ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NoAnswerError(_reason(error)) from error
        if len(body) > MAX_ANSWER_BYTES:
            raise NoAnswerError(f"its answer is larger than {MAX_ANSWER_BYTES} bytes")
        if response.length:
            raise NoAnswerError("its answer ended early")
        return Answer(response.status, body)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there (connection refused)"
    if isinstance(error, http.client.RemoteDisconnected | ConnectionError):
        return "it broke the connection off"
    if isinstance(error, OSError):
        return (error.strerror or str(error))[:200]
    return "its answer is no HTTP"


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


@cache
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    roots = os.environ.get("REQUESTS_CA_BUNDLE")  # what the downloader trusts for its sources, too
    if roots:
        context.load_verify_locations(**{"capath" if Path(roots).is_dir() else "cafile": roots})
    return context


class _Connection(http.client.HTTPConnection):
    """Goes to the one address, and names the place it stands for."""

    def __init__(self, address: Address, deadline: float) -> None:
        super().__init__(address.place.host, address.place.port)
        self._address = address
        self._deadline = deadline

    def connect(self) -> None:
        sock = socket.socket(self._address.family, socket.SOCK_STREAM)
        try:
            sock.settimeout(_left(self._deadline))
            sock.connect(self._address.target)
            sock.settimeout(_left(self._deadline))
            if self._address.place.scheme == "https":
                sock = _tls().wrap_socket(sock, server_hostname=self._address.place.host)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


class _Response(http.client.HTTPResponse):
    """Waits for no byte beyond the deadline, however slowly they drip."""

    def __init__(self, deadline: float, sock: socket.socket, debuglevel: int = 0, method: str | None = None) -> None:
        super().__init__(sock, debuglevel, method)
        self.fp = io.BufferedReader(_InTime(self.fp, sock, deadline))


class _InTime(io.RawIOBase):
    def __init__(self, stream: io.BufferedReader, sock: socket.socket, deadline: float) -> None:
        super().__init__()
        self._stream = stream
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        self._sock.settimeout(_left(self._deadline))
        return self._stream.readinto1(buffer)

    def close(self) -> None:
        self._stream.close()
        super().close()
