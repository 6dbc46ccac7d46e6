"""One session with the web: checked addresses, the token and its origin, limits, pace, the libraries' errors as ours.

A session belongs to one connection. It follows nothing and judges no answer: `web` does.
"""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from services.downloader.limits import Limits
from services.downloader.sources.base import PermanentSourceError, TransientSourceError
from services.downloader.sources.connection import Gate, checked_session
from services.downloader.sources.pacing import Pace
from shared.addresses import origin_of
from shared.version import __version__

_USER_AGENT = f"r3mes-downloader/{__version__}"
# What reading past the libraries, straight into our buffer, may raise.
_PLAIN_ERRORS = (http.client.HTTPException, OSError, ValueError)


class Web:
    """One session with what all its sources share: the gate, limits, pace, proxies, and the token with its origin."""

    def __init__(self, gate: Gate, limits: Limits, pace: Pace, token: str | None = None) -> None:
        self.gate = gate
        self.limits = limits
        self.pace = pace
        self._token = token
        self._session = checked_session(gate)
        self._buffer = memoryview(bytearray(limits.buffer_bytes))
        self._verify: str | bool = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or True

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def request(self, method: str, url: str, byte_range: tuple[int, int] | None) -> requests.Response:
        """Ask one address, follow nothing; raises TransientSourceError, PermanentSourceError, or the interrupt."""
        problem = self.gate.policy.form_problem(url)
        if problem:
            raise PermanentSourceError(
                f"refused address: {problem}", next_step="if it is an origin of yours: R3MES_ALLOW_HTTP_SOURCES"
            )
        self.gate.interrupt.check()
        headers = {"User-Agent": _USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
        if byte_range is not None:
            headers["Range"] = f"bytes={byte_range[0]}-{byte_range[1] - 1}"
        if self._token and origin_of(url) == origin_of(self.gate.policy.hf_endpoint):
            headers["Authorization"] = f"Bearer {self._token}"
        with self._translated(url):
            return self._session.request(
                method,
                url,
                headers=headers,
                stream=True,
                allow_redirects=False,
                timeout=(self.limits.connect_seconds, self.limits.first_byte_seconds),
                proxies=requests.utils.get_environ_proxies(url, no_proxy=None),
                verify=self._verify,
            )

    def chunks(self, response: requests.Response, url: str, wanted: int) -> Iterator[bytes | memoryview]:
        """Yield the body as it comes, undecoded; raises TransientSourceError (also for a stall) or the interrupt.

        Nothing is read behind the `wanted` bytes of a chunked body: its trailers may have no end. A chunk is good until
        the next one is taken: all share one buffer.
        """
        stall = StallMeter(self.limits.stall_seconds, self.limits.stall_bytes)
        read = self._reader(response)
        size, came = self.pace.chunk_bytes(self.limits.buffer_bytes), 0
        while not (response.raw.chunked and came >= wanted):
            chunk: bytes | memoryview = b""
            wait = self.pace.book(size)
            try:
                if wait > 0:
                    self.gate.interrupt.wait(wait)
                asked_at = time.monotonic()
                with self._translated(url):
                    chunk = read(size)
            finally:
                self.pace.give_back(size - len(chunk))
            self.gate.interrupt.check()
            if not chunk:
                return
            if stall.is_stalled(time.monotonic() - asked_at, len(chunk)):
                raise TransientSourceError(f"{urlsplit(url).hostname} has stalled")
            came += len(chunk)
            self.gate.bound_receiving()
            yield chunk

    def finish(self, response: requests.Response) -> None:
        """Keep the connection of an answer that was read to its end; cut any other one off."""
        original = _original(response)
        if original is not None and original.isclosed():
            response.raw.release_conn()
        response.close()

    def _reader(self, response: requests.Response) -> Callable[[int], bytes | memoryview]:
        """Return what reads up to so many bytes, as they come: into the one buffer where the body is not chunked."""
        original = _original(response)
        if response.raw.chunked or original is None:
            return lambda count: bytes(response.raw.read1(count, decode_content=False))
        return lambda count: self._buffer[: _read_into(original, self._buffer[:count])]

    @contextmanager
    def _translated(self, url: str) -> Iterator[None]:
        """Turn the libraries' errors into ours; a socket that we shut down ourselves raises the interrupt."""
        host = urlsplit(url).hostname
        try:
            yield
        except (requests.exceptions.InvalidURL, urllib3.exceptions.LocationParseError) as error:
            self.gate.interrupt.check()
            raise PermanentSourceError(f"{host}: not an address that can be asked") from error
        except (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError) as error:
            self.gate.interrupt.check()
            raise TransientSourceError(f"{host} does not answer in time") from error
        except requests.ConnectionError as error:
            self.gate.interrupt.check()
            raise TransientSourceError(f"{host}: {_innermost(error)}", is_too_much=True) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, *_PLAIN_ERRORS) as error:
            self.gate.interrupt.check()
            raise TransientSourceError(f"{host}: {_innermost(error)}") from error


class StallMeter:
    """Tells a stalled body from a slow one: too few bytes in a time of waiting for the network, and only that. Pure."""

    def __init__(self, seconds: float, least_bytes: int) -> None:
        self._seconds = seconds
        self._least_bytes = least_bytes
        self._waited = 0.0
        self._came = 0

    def is_stalled(self, waited: float, came: int) -> bool:
        """Count a wait and what it brought; True when a full window of waiting brought too little."""
        self._waited += waited
        self._came += came
        if self._waited < self._seconds:
            return False
        stalled = self._came < self._least_bytes
        self._waited, self._came = 0.0, 0
        return stalled


def _original(response: requests.Response) -> http.client.HTTPResponse | None:
    """The standard library's own response, which can read into a buffer; urllib3's copies."""
    original = response.raw._original_response  # noqa: SLF001  what `requests` itself uses for cookies
    return original if isinstance(original, http.client.HTTPResponse) else None


def _read_into(original: http.client.HTTPResponse, view: memoryview) -> int:
    """Do what its `read1` does, without making an object of a megabyte for each call."""
    if original.isclosed():
        return 0
    wanted = view if original.length is None else view[: original.length]
    count = original.fp.readinto1(wanted)
    if original.length is not None:
        original.length -= count
        if original.length == 0:
            original.read(0)  # by which it finds out that it is at its end
    return count


def _innermost(error: BaseException) -> str:
    """The words of the error at the bottom, without the libraries' own wrapping."""
    seen = error
    while (inner := getattr(seen, "reason", None) or seen.__cause__ or seen.__context__) is not None:
        if not isinstance(inner, BaseException):
            break
        seen = inner
    return str(seen)[:200] or type(seen).__name__
