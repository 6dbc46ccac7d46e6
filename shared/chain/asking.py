"""Asking one endpoint over HTTP: checked addresses, no redirects, bounded bytes, bounded time.

A redirect is not followed at all, since a node has no reason to give one: it counts as no answer. Proxies of the
environment are used as elsewhere. `cut` ends whatever a thread is waiting for.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any
from urllib.parse import urlsplit

from shared.addresses import AddressPolicy, proxy_origins
from shared.chain import answers
from shared.chain.answers import MAX_CHUNK_ANSWER_BYTES, MAX_PLAIN_ANSWER_BYTES, NoAnswerError
from shared.chain.endpoints import Endpoint
from shared.chain.registry import MAX_CHAIN_GENESIS_BYTES
from shared.version import __version__

# Seconds that each single wait for the network may take.
WAIT_SECONDS = 10.0
_PIECE_BYTES = 1024 * 1024
# Up to here an answer waits in memory.
_IN_MEMORY_BYTES = 16 * 1024 * 1024
_OK = 200
_HEADERS = {"User-Agent": f"r3mes-chain-check/{__version__}", "Accept-Encoding": "identity", "Accept": "*/*"}


class Asker:
    """Asks one endpoint until `deadline` (monotonic seconds)."""

    def __init__(self, endpoint: Endpoint, environ: Mapping[str, str], deadline: float) -> None:
        self.endpoint = endpoint
        self._deadline = deadline
        self._policy = AddressPolicy(frozenset({endpoint.origin, *proxy_origins(environ)}))
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._is_cut = False
        self._proxies = _proxies(endpoint, environ)
        self._opener = urllib.request.OpenerDirector()

    def genesis(self) -> IO[bytes]:
        """Return a file of the genesis, as the endpoint gives it, to be read from its start; raises NoAnswerError.

        What came waits on disk, so that several large answers need no memory.
        """
        file = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - whoever reads it closes it
        try:
            # Nothing else: what knows no redirects follows none, and an error's status is an answer like any other.
            self._opener.add_handler(urllib.request.ProxyHandler(self._proxies))
            self._opener.add_handler(_Tls(self) if self.endpoint.origin.scheme == "https" else _Plain(self))
            plain = answers.plain_genesis(self._get("/genesis", MAX_PLAIN_ANSWER_BYTES))
            if plain is None:
                self._take_chunks(file)
            else:
                file.write(plain)
            file.seek(0)
        except (OSError, http.client.HTTPException, ValueError) as error:
            file.close()
            reason = getattr(error, "reason", None) or error
            raise NoAnswerError(str(reason)[:200] or type(reason).__name__) from error
        except NoAnswerError:
            file.close()
            raise
        return file

    def cut(self) -> None:
        """End every wait for the network."""
        with self._lock:
            self._is_cut = True
            for sock in self._sockets:
                _shut_down(sock)

    def watch(self, sock: socket.socket) -> None:
        """Let `cut` shut this socket down."""
        with self._lock:
            self._sockets.append(sock)
            if self._is_cut:
                _shut_down(sock)

    def connect(self, scheme: str, host: str, port: int) -> socket.socket:
        """Resolve, judge every address, connect to the first that answers; raises OSError."""
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        for entry in found:
            if not self._policy.allows_connection(scheme, host, port, str(entry[4][0])):
                raise NoAnswerError(f"{host} leads to {entry[4][0]}, which may not be asked")
        last = OSError(f"{host} has no address")
        for family, kind, protocol, _, address in found:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(self._left())
                self.watch(sock)
                sock.connect(address)
            except OSError as error:
                sock.close()
                last = error
            else:
                return sock
        raise last

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0 or self._is_cut:
            raise TimeoutError("it takes too long")
        return min(left, WAIT_SECONDS)

    def _take_chunks(self, file: IO[bytes]) -> None:
        number, total = 0, 1
        while number < total:
            part = answers.chunk(self._get(f"/genesis_chunked?chunk={number}", MAX_CHUNK_ANSWER_BYTES), number)
            if number and part.total != total:
                raise NoAnswerError(f"it announces {total} chunks, then {part.total}")
            total = part.total
            number += 1
            if file.tell() + len(part.data) > MAX_CHAIN_GENESIS_BYTES:
                raise NoAnswerError(f"its genesis is larger than {MAX_CHAIN_GENESIS_BYTES} bytes")
            file.write(part.data)

    def _get(self, path: str, limit: int) -> bytes:
        request = urllib.request.Request(f"{self.endpoint.url}{path}", headers=_HEADERS)  # noqa: S310 - http or https
        answer = self._opener.open(request, timeout=self._left())
        if answer is None:
            raise NoAnswerError("it cannot be asked")
        with answer:
            encoding = answer.headers.get("Content-Encoding", "identity")
            if encoding.lower() != "identity":
                raise NoAnswerError("it compresses its answer, which was not asked for")
            raw = self._body(answer, limit)
            if answer.status // 100 == 3:  # noqa: PLR2004
                raise NoAnswerError("it answers with a redirect, which is not followed")
        if answer.status != _OK and not answers.is_error(raw):
            raise NoAnswerError(f"it answers with status {answer.status}")
        return raw

    def _body(self, answer: http.client.HTTPResponse, limit: int) -> bytes:
        body = bytearray()
        while part := answer.read1(_PIECE_BYTES):
            self._left()
            if len(body) + len(part) > limit:
                raise NoAnswerError(f"its answer is larger than {limit} bytes")
            body += part
        if answer.length:
            raise NoAnswerError("its answer ended early")
        return bytes(body)


class _PlainConnection(http.client.HTTPConnection):
    def __init__(self, host: str, *, asker: Asker, **options: Any) -> None:  # noqa: ANN401 - the library's own
        super().__init__(host, **options)
        self._create_connection = lambda address, *_: asker.connect("http", *address)


class _TlsConnection(http.client.HTTPSConnection):
    def __init__(self, host: str, *, asker: Asker, **options: Any) -> None:  # noqa: ANN401 - the library's own
        super().__init__(host, **options)
        self._asker = asker
        self._create_connection = self._connect_checked

    def _connect_checked(self, address: tuple[str, int], *_: object) -> socket.socket:
        # The way to a proxy is plain: TLS begins behind it.
        return self._asker.connect("http" if self._tunnel_host else "https", *address)  # type: ignore[attr-defined]

    def connect(self) -> None:
        super().connect()
        self._asker.watch(self.sock)  # the plain socket gave its descriptor to this one


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, asker: Asker) -> None:
        super().__init__()
        self._asker = asker

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_PlainConnection, asker=self._asker), req)


class _Tls(urllib.request.HTTPSHandler):
    def __init__(self, asker: Asker) -> None:
        self._tls = ssl.create_default_context()
        roots = os.environ.get("REQUESTS_CA_BUNDLE")  # what the downloader trusts for its sources, too
        if roots:
            self._tls.load_verify_locations(**{"capath" if Path(roots).is_dir() else "cafile": roots})
        super().__init__(context=self._tls)
        self._asker = asker

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_TlsConnection, asker=self._asker, context=self._tls), req)


def _proxies(endpoint: Endpoint, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the proxies for an endpoint; none where NO_PROXY names it."""
    named = {name.lower().removesuffix("_proxy"): value for name, value in environ.items() if _is_proxy(name)}
    host = urlsplit(endpoint.url).netloc
    if urllib.request.proxy_bypass_environment(host, proxies={"no": named.pop("no", "")}):  # type: ignore[attr-defined]
        return {}
    either = named.pop("all", None)
    return {scheme: proxy for scheme in ("http", "https") if (proxy := named.get(scheme, either))}


def _is_proxy(name: str) -> bool:
    return name.upper() in {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):  # not connected yet, or closed already
        sock.shutdown(socket.SHUT_RDWR)
