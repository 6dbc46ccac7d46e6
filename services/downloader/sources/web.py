"""A file behind an http(s) address: Hugging Face's `resolve` addresses, mirrors that look alike, IPFS gateways.

Redirects are followed by hand: each hop is judged before it is asked, the token goes to the endpoint's own origin and
nowhere else. The address at the end of the redirects is kept for the next range and forgotten when it stops working.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import urldefrag, urljoin, urlsplit

import requests
import urllib3.exceptions
from requests.structures import CaseInsensitiveDict

from services.downloader.limits import Limits
from services.downloader.sources.answers import REDIRECTS, Announced, Head, announced, facts_of, refuse_failure
from services.downloader.sources.base import (
    Body,
    ByteSource,
    ExpiredLocationError,
    Facts,
    PermanentSourceError,
    TransientSourceError,
)
from services.downloader.sources.connection import Gate, checked_session
from services.downloader.sources.pacing import Pace
from shared.addresses import origin_of
from shared.states import Source
from shared.version import __version__

_USER_AGENT = f"r3mes-downloader/{__version__}"
_HEAD_REFUSED = frozenset({HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED})


class Web:
    """One session with what all its sources share: the gate, limits, pace, proxies, and the token with its origin."""

    def __init__(self, gate: Gate, limits: Limits, pace: Pace, token: str | None = None) -> None:
        self.gate = gate
        self.limits = limits
        self.pace = pace
        self._token = token
        self._session = checked_session(gate)
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

    def chunks(self, response: requests.Response, url: str) -> Iterator[bytes]:
        """Yield the body as it comes, undecoded; raises TransientSourceError or the interrupt."""
        size = self.pace.chunk_bytes(self.limits.buffer_bytes)
        while True:
            with self._translated(url):
                chunk = response.raw.read1(size, decode_content=False)
            self.gate.interrupt.check()
            if not chunk:
                return
            yield chunk
            wait = self.pace.seconds_before(len(chunk))
            if wait > 0:
                self.gate.interrupt.wait(wait)

    @contextmanager
    def _translated(self, url: str) -> Iterator[None]:
        """Turn the libraries' errors into ours; a socket that we shut down ourselves raises the interrupt."""
        host = urlsplit(url).hostname
        try:
            yield
        except (requests.exceptions.InvalidURL, urllib3.exceptions.LocationParseError) as error:
            self.gate.interrupt.check()
            raise PermanentSourceError(f"{host}: not an address that can be asked") from error
        except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
            self.gate.interrupt.check()
            raise TransientSourceError(f"{host} does not answer in time") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            self.gate.interrupt.check()
            raise TransientSourceError(f"{host}: {_innermost(error)}") from error


class WebSource(ByteSource):
    """One http(s) address. `first_answer_has_facts`: it is asked for size and digest before any byte."""

    def __init__(self, kind: Source, url: str, web: Web, *, revision: str = "", has_facts: bool = True) -> None:
        self.kind = kind
        self.url = url
        self._web = web
        self._revision = revision
        self._has_facts = has_facts
        self._location: str | None = None

    def preflight(self) -> Facts:
        """Ask with HEAD, following only redirects within the origin, until an answer tells of a file."""
        if not self._has_facts:
            return Facts(revision=self._revision)
        url = self.url
        for _ in range(self._web.limits.redirects + 1):
            head = self._head(url)
            refuse_failure(head)
            facts = facts_of(head.headers)
            onward = _onward(url, head) if _leads_on(head) else None
            if facts.sha256 or facts.size is not None or onward is None or origin_of(onward) != origin_of(url):
                return facts
            url = onward
        raise PermanentSourceError("too many redirects")

    @contextmanager
    def _open(self, start: int, end: int, size: int | None) -> Iterator[Body]:
        response, found = self._answer(start, end, size)
        try:
            chunks = self._web.chunks(response, response.url)
            yield Body(found.start, found.end, found.size, chunks, found.restarted)
        finally:
            # An answer that was read to its end has given its connection back; any other one is cut off here.
            response.close()

    def _answer(self, start: int, end: int, size: int | None) -> tuple[requests.Response, Announced]:
        """Ask where the last range came from; when that address has expired, ask the first one again, once."""
        if self._location is not None:
            try:
                return self._judged(start, end, size)
            except ExpiredLocationError:
                pass
        return self._judged(start, end, size)

    def _judged(self, start: int, end: int, size: int | None) -> tuple[requests.Response, Announced]:
        response, redirected = self._ask((start, end))
        try:
            found = announced(_head(response, redirected=redirected), start, end, size)
        except BaseException:
            self._location = None
            response.close()
            raise
        self._location = response.url
        return response, found

    def _ask(self, byte_range: tuple[int, int]) -> tuple[requests.Response, bool]:
        """GET the range, following redirects; return the answer and whether it came from another address."""
        url = self._location or self.url
        for _ in range(self._web.limits.redirects + 1):
            response = self._web.request("GET", url, byte_range)
            head = _head(response)
            if not _leads_on(head):
                return response, url != self.url
            response.close()
            url = _onward(url, head)
        self._location = None
        raise PermanentSourceError(f"more than {self._web.limits.redirects} redirects")

    def _head(self, url: str) -> Head:
        response = self._web.request("HEAD", url, None)
        response.close()
        if response.status_code in _HEAD_REFUSED:
            response = self._web.request("GET", url, (0, 1))
            response.close()
        return _head(response)


def _head(response: requests.Response, *, redirected: bool = False) -> Head:
    return Head(response.status_code, CaseInsensitiveDict(response.headers), redirected)


def _leads_on(head: Head) -> bool:
    return head.status in REDIRECTS and "Location" in head.headers


def _onward(url: str, head: Head) -> str:
    """Return where a redirect leads; raises PermanentSourceError for what is no http(s) address of a host alone."""
    location = head.headers["Location"].encode("latin-1", errors="replace").decode("utf-8", errors="replace")
    try:
        target = urldefrag(urljoin(url, location)).url
        parts = urlsplit(target)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.username is None and parts.port != 0
    except ValueError:
        usable, target = False, location
    if not usable:
        raise PermanentSourceError(f"it redirects to {target[:60]!r}")
    return target


def _innermost(error: BaseException) -> str:
    """The words of the error at the bottom, without the libraries' own wrapping."""
    seen = error
    while (inner := getattr(seen, "reason", None) or seen.__cause__ or seen.__context__) is not None:
        if not isinstance(inner, BaseException):
            break
        seen = inner
    return str(seen)[:200] or type(seen).__name__
