"""Connections that go to checked addresses only: we resolve, judge every address, and connect to what was judged.

So a name that gives another address a moment later (rebinding) changes nothing. Proxies of the environment are
connected to in the same way; what stands behind one resolves names by itself, so only the form of its URL is judged.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.poolmanager import PoolManager
from urllib3.response import HTTPResponse

from services.downloader.interrupt import Interrupt
from services.downloader.limits import Limits
from services.downloader.sources.base import PermanentSourceError
from shared.addresses import AddressPolicy

# Heads that are read for one request: the answer's, and before it interim ones such as `103 Early Hints`.
_MOST_HEADS = 8


class RefusedAddressError(PermanentSourceError):
    """An address that may not be connected to."""


class Gate:
    """Judges addresses, opens sockets, hands them to the interrupt.

    `limits` bounds each wait for a body (seconds) and what the kernel receives ahead of us (bytes).
    """

    def __init__(self, policy: AddressPolicy, interrupt: Interrupt, limits: Limits) -> None:
        self.policy = policy
        self.interrupt = interrupt
        self.stall_seconds = limits.stall_seconds
        self._receive_bytes = limits.received_bytes // limits.connections
        self._reading: socket.socket | None = None

    def connect(self, connection: HTTPConnection, scheme: str) -> socket.socket:
        """Resolve, judge every address, connect to the first that answers; raises urllib3's errors or a refusal."""
        host, port = connection.host.strip("[]"), int(connection.port or 0)
        addresses = _resolve(connection, host, port)
        for _, address in addresses:
            if not self.policy.allows_connection(scheme, host, port, str(address[0])):
                raise RefusedAddressError(
                    f"{host} leads to {address[0]}, which is not a public address",
                    next_step=f"if this is an origin of yours: R3MES_ALLOW_HTTP_SOURCES={host}:{port}",
                )
        last: OSError | None = None
        for family, address in addresses:
            self.interrupt.check()
            try:
                return self._connect(connection, family, address)
            except OSError as error:
                last = error
        if isinstance(last, TimeoutError):
            raise ConnectTimeoutError(connection, f"{host}:{port} does not answer") from last
        raise NewConnectionError(connection, f"cannot connect to {host}:{port}: {last}") from last

    def read_from(self, sock: socket.socket | None) -> None:
        """An answer has begun on this socket: from now on it is the body that is waited for."""
        self._reading = sock
        if sock is not None:
            sock.settimeout(self.stall_seconds)

    def bound_receiving(self) -> None:
        """Stop the kernel from receiving ever further ahead of us, where it allows our bound; call it for each chunk.

        Only once it does: a large buffer from the first byte on would let a liar send more in vain.
        """
        if self._reading is None or not _can_hold(self._receive_bytes):
            return
        with suppress(OSError):  # the answer has ended, and its socket is closed
            if self._reading.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > self._receive_bytes:
                self._reading.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _asked_for(self._receive_bytes))

    def _connect(self, connection: HTTPConnection, family: int, address: tuple[Any, ...]) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            for option in connection.socket_options or ():
                sock.setsockopt(*option)
            timeout = connection.timeout
            sock.settimeout(timeout if isinstance(timeout, int | float) else None)
            self.interrupt.watch(sock)
            sock.connect(address)
        except BaseException:
            sock.close()
            raise
        return sock


def _asked_for(count: int) -> int:
    """Return what to ask for, so that a buffer holds `count` bytes: the kernel doubles it, for its own needs."""
    return count // 2


@cache
def _can_hold(count: int) -> bool:
    """Tell whether a buffer of `count` may be asked for: a smaller one (`net.core.rmem_max`) would slow downloads."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _asked_for(count))
        return trial.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= count


def _resolve(connection: HTTPConnection, host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        reason = error if isinstance(error, socket.gaierror) else socket.gaierror(str(error))
        raise NameResolutionError(host, connection, reason) from error
    return [(entry[0], entry[4]) for entry in found]


class CheckedAdapter(HTTPAdapter):
    """An adapter of `requests` whose every connection, direct or to a proxy, passes the gate."""

    def __init__(self, gate: Gate) -> None:
        self._pools = _pool_classes(gate)
        super().__init__(pool_connections=8, pool_maxsize=8, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the base class's own signature
        """Make the pools with checked connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> PoolManager:  # noqa: ANN401 - as above
        """Make a proxy's pools with checked connections."""
        manager: PoolManager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager


class _Answer(http.client.HTTPResponse):
    """An answer before which only a few interim ones are read: the library itself would read them without end."""

    _interim = 0

    def _read_status(self) -> tuple[str, int, str]:
        self._interim += 1
        if self._interim > _MOST_HEADS:
            raise http.client.HTTPException(f"more than {_MOST_HEADS - 1} interim answers")
        return super()._read_status()  # type: ignore[misc, no-any-return]  # what typeshed does not know


def _pool_classes(gate: Gate) -> dict[str, type[HTTPConnectionPool]]:
    class PlainConnection(HTTPConnection):
        response_class = _Answer

        def _new_conn(self) -> socket.socket:
            return gate.connect(self, _scheme(self, "http"))

        def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 itself does
            return _awaited(gate, self, super().getresponse)

    class TlsConnection(HTTPSConnection):
        response_class = _Answer

        def _new_conn(self) -> socket.socket:
            return gate.connect(self, _scheme(self, "https"))

        def connect(self) -> None:
            super().connect()
            if self.sock is not None:
                gate.interrupt.watch(self.sock)

        def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 itself does
            return _awaited(gate, self, super().getresponse)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = PlainConnection

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = TlsConnection

    return {"http": PlainPool, "https": TlsPool}


def _scheme(connection: HTTPConnection, own: str) -> str:
    """The scheme of the place that is connected to: the proxy's, where there is one."""
    proxy = connection.proxy
    return str(proxy.scheme) if proxy is not None and proxy.scheme else own


def _awaited(gate: Gate, connection: HTTPConnection, getresponse: Callable[[], HTTPResponse]) -> HTTPResponse:
    """Take the answer's head; from then on it is the body that is waited for."""
    sock = connection.sock
    response = getresponse()
    gate.read_from(sock)
    return response


class _Session(requests.Session):
    """Redirects are ours to judge: left to itself, the library reads the whole body of one, however long."""

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002 - the base class's signature
        return None


def checked_session(gate: Gate) -> requests.Session:
    """Return a session that reads no netrc, keeps no cookies and connects to checked addresses only."""
    session = _Session()
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    adapter = CheckedAdapter(gate)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session
