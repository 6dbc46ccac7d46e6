"""A file behind an http(s) address: Hugging Face's `resolve` addresses, mirrors that look alike, IPFS gateways.

Redirects are followed by hand: each hop is judged before it is asked, the token goes to the endpoint's own origin and
nowhere else. The address at the end of the redirects is kept for the next range of any connection, and forgotten when
it stops working.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urldefrag, urljoin, urlsplit, urlunsplit

import requests
from requests.structures import CaseInsensitiveDict

from services.downloader.interrupt import Interrupt
from services.downloader.sources.answers import REDIRECTS, Announced, Head, announced, facts_of, refuse_failure
from services.downloader.sources.base import (
    Body,
    ByteSource,
    Connection,
    ExpiredLocationError,
    Facts,
    PermanentSourceError,
    Supply,
    UpstreamMismatchError,
)
from services.downloader.sources.session import Web
from shared.addresses import origin_of
from shared.states import Source

_RESOLVE = re.compile(r"(?P<repository>/[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HEAD_REFUSED = frozenset({HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED})


Judge = Callable[[Facts], None]


class Address:
    """One http(s) address, shared by all connections of a turn: where its redirects lead, and its revision.

    `pinned` is the address of one revision for good, asked from the moment on when preflight has learnt the revision;
    a server that does not know it is asked by the first address again.
    """

    def __init__(self, url: str, *, revision: str = "", has_facts: bool = True) -> None:
        self.url = url
        self.has_facts = has_facts
        self.revision = revision
        self._lock = threading.Lock()
        self._pinned: str | None = None
        self._location: str | None = None

    @property
    def first(self) -> str:
        """The address that is asked before any redirect is known."""
        return self._pinned or self.url

    @property
    def location(self) -> str | None:
        """Where the last good answer came from, as long as that works."""
        return self._location

    def learn(self, facts: Facts) -> None:
        """Keep to the revision that preflight has found."""
        with self._lock:
            if facts.revision and not self.revision:
                self.revision = facts.revision
                self._pinned = pin_revision(self.url, facts.revision)

    def forget_pinned(self, asked: str) -> bool:
        """The address `asked` does not work: tell whether it was the pinned one, which is not asked again."""
        with self._lock:
            was_pinned = self._pinned is not None and asked == self._pinned
            if was_pinned:
                self._pinned = None
            return was_pinned

    def remember(self, location: str) -> None:
        """Ask there for the next range."""
        with self._lock:
            self._location = location

    def forget(self, location: str | None) -> None:
        """Do not ask there again, unless another connection has found a better one meanwhile."""
        with self._lock:
            if self._location == location:
                self._location = None


class WebSource(ByteSource):
    """One address as one connection sees it. `judge` compares what an answer tells of the file with the pin."""

    def __init__(self, kind: Source, address: Address, web: Web, judge: Judge) -> None:
        self.kind = kind
        self.url = address.url
        self._address = address
        self._web = web
        self._judge = judge

    def preflight(self) -> Facts:
        """Ask with HEAD, following only redirects within the origin, until an answer tells of a file."""
        if not self._address.has_facts:
            return Facts(revision=self._address.revision)
        url = self.url
        for _ in range(self._web.limits.redirects + 1):
            head = self._head(url)
            refuse_failure(head)
            facts = facts_of(head.headers)
            onward = _onward(url, head) if _leads_on(head) else None
            if facts.sha256 or facts.size is not None or onward is None or origin_of(onward) != origin_of(url):
                self._address.learn(facts)
                return facts
            url = onward
        raise PermanentSourceError("too many redirects")

    @contextmanager
    def _open(self, start: int, end: int, size: int | None) -> Iterator[Body]:
        response, found = self._answer(start, end, size)
        try:
            chunks = self._web.chunks(response, response.url, found.end - found.start)
            yield Body(found.start, found.end, found.size, chunks, found.whole)
        finally:
            self._web.finish(response)

    def _answer(self, start: int, end: int, size: int | None) -> tuple[requests.Response, Announced]:
        """Ask where the last range came from; when that address has expired, ask the first one again, once."""
        location = self._address.location
        if location is not None:
            try:
                return self._judged(location, start, end, size, is_location=True)
            except ExpiredLocationError:
                pass
        first = self._address.first
        try:
            return self._judged(first, start, end, size)
        except (PermanentSourceError, ExpiredLocationError):
            if not self._address.forget_pinned(first):
                raise
        return self._judged(self._address.first, start, end, size)

    def _judged(
        self, url: str, start: int, end: int, size: int | None, *, is_location: bool = False
    ) -> tuple[requests.Response, Announced]:
        response, redirected = self._ask(url, (start, end))
        try:
            found = announced(_head(response, redirected=redirected or is_location), start, end, size)
        except BaseException:
            self._address.forget(url)
            response.close()
            raise
        self._address.remember(response.url)
        return response, found

    def _ask(self, url: str, byte_range: tuple[int, int]) -> tuple[requests.Response, bool]:
        """GET the range, following redirects; return the answer and whether it came from another address."""
        asked = url
        for _ in range(self._web.limits.redirects + 1):
            response = self._web.request("GET", asked, byte_range)
            head = _head(response)
            try:
                self._compare(head)
                if not _leads_on(head):
                    return response, asked != url
                onward = _onward(asked, head)
            except BaseException:
                response.close()
                raise
            response.close()
            asked = onward
        self._address.forget(url)
        raise PermanentSourceError(f"more than {self._web.limits.redirects} redirects")

    def _compare(self, head: Head) -> None:
        """Whatever upstream tells of the file later is compared, too: it may have moved on since preflight."""
        if not self._address.has_facts or head.status >= HTTPStatus.BAD_REQUEST:
            return
        facts = facts_of(head.headers)
        self._judge(facts)
        if facts.revision and self._address.revision not in {"", facts.revision} and facts.sha256 is None:
            raise UpstreamMismatchError(
                f"upstream moved from {self._address.revision} to {facts.revision} while the file came",
                next_step="name a commit instead of a branch in download_source",
            )

    def _head(self, url: str) -> Head:
        response = self._web.request("HEAD", url, None)
        response.close()
        if response.status_code in _HEAD_REFUSED:
            response = self._web.request("GET", url, (0, 1))
            response.close()
        return _head(response)


@dataclass
class WebSupply(Supply):
    """The addresses of one source; each connection has a session of its own, made by `make_web`."""

    kind: Source
    addresses: Sequence[Address]
    make_web: Callable[[Interrupt], Web]
    judge: Judge
    connections: int = 1
    together: bool = False
    spread: bool = False

    def __post_init__(self) -> None:
        self.places = len(self.addresses)

    def connect(self, interrupt: Interrupt) -> Connection:
        """Return a session's view of all addresses."""
        web = self.make_web(interrupt)
        return Connection(tuple(WebSource(self.kind, a, web, self.judge) for a in self.addresses), web.close)


def pin_revision(url: str, revision: str) -> str | None:
    """Return a `resolve` URL of Hugging Face with its branch or tag replaced by a commit; None for any other URL."""
    parts = urlsplit(url)
    match = _RESOLVE.fullmatch(parts.path)
    if match is None or match["revision"] == revision or not _COMMIT.fullmatch(revision):
        return None
    return urlunsplit(parts._replace(path=f"{match['repository']}/resolve/{revision}/{match['file']}"))


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
