"""A look at where a pin's bytes come from, for `r3mes doctor` and `r3mes bench`: the downloader's own connection.

Addresses, proxies, certificates, token and redirects are judged as in a download, so what is found here is what a
download would find. Nothing is written, and at most the bytes that are asked for are read. Names are resolved by the
system, which may take its time: the caller bounds that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import requests

from services.downloader.interrupt import Interrupt, InterruptedTransferError, Reason
from services.downloader.limits import DEFAULT_LIMITS, MIB, Limits
from services.downloader.sources.base import Facts, TransientSourceError
from services.downloader.sources.connection import Gate
from services.downloader.sources.pacing import Pace
from services.downloader.sources.preflight import refuse_mismatch
from services.downloader.sources.session import Web
from services.downloader.sources.web import Address, WebSource
from shared.addresses import AddressPolicy
from shared.errors import R3mesError
from shared.genesis import ModelPin
from shared.states import Source


@dataclass(frozen=True, slots=True)
class Look:
    """What a place said of a pin's file.

    `status` and `date` (its Date header) are of the first answer, which came `heard_at` (seconds since 1970);
    `first_byte_seconds` from the question to the file's first byte; `error` why it would not do, None when it would.
    """

    url: str
    status: int | None
    date: str
    heard_at: float
    seconds: float
    first_byte_seconds: float | None
    size: int | None
    sha256: str | None
    revision: str
    error: R3mesError | None


@dataclass(frozen=True, slots=True)
class Sample:
    """Some bytes of a file: how many came, seconds to the first of them, seconds in all. They are thrown away."""

    count: int
    first_byte_seconds: float
    seconds: float


class Scout:
    """Asks the places of pinned files; raises ConfigurationError when the settings about addresses make no sense."""

    def __init__(
        self, environ: Mapping[str, str], pins: Sequence[ModelPin], token: str | None, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self.policy = AddressPolicy.from_environ(environ, [pin.download_source for pin in pins])
        self._token = token
        self._limits = limits

    def source_of(self, pin: ModelPin) -> str:
        """The address that a download of `pin` asks first."""
        return self.policy.effective_source(pin.download_source)

    def look(self, pin: ModelPin, gateway: str | None = None, *, seconds: float) -> Look:
        """Ask the pin's own source, or an IPFS gateway, for what it says of the file and for its first byte."""
        began = time.monotonic()
        facts, first, error = Facts(), None, None
        address = self._address(pin, gateway)
        with self._web(None if gateway else self._token, seconds) as web:
            source = WebSource(Source.IPFS if gateway else Source.HUGGINGFACE, address, web, lambda _facts: None)
            try:
                with _in_time(seconds):
                    facts = source.preflight()
                    refuse_mismatch(pin, facts)
                    asked = time.monotonic()
                    size = facts.size or pin.size_bytes
                    with source.fetch(0, 1, size, pin.required_bytes) as body:
                        next(iter(body.chunks))
                    first = time.monotonic() - asked
            except R3mesError as found:
                error = found
        took = time.monotonic() - began
        return Look(
            address.url,
            web.status,
            web.date,
            web.heard_at,
            took,
            first,
            facts.size,
            facts.sha256,
            facts.revision,
            error,
        )

    def sample(self, pin: ModelPin, start: int, end: int, *, seconds: float) -> Sample:
        """Read bytes `[start, end)` of the pin's own source, for at most so many seconds; raises R3mesError."""
        began, first, count = time.monotonic(), 0.0, 0
        with self._web(self._token, seconds) as web:
            source = WebSource(Source.HUGGINGFACE, self._address(pin, None), web, lambda _facts: None)
            try:
                with _in_time(seconds), source.fetch(start, end, pin.size_bytes, pin.required_bytes) as body:
                    for chunk in body.chunks:
                        first = first or time.monotonic() - began
                        count += len(chunk)
            except TransientSourceError:
                if not count:
                    raise
        return Sample(count, first, time.monotonic() - began)

    def _address(self, pin: ModelPin, gateway: str | None) -> Address:
        if gateway is None:
            return Address(self.source_of(pin))
        cid = pin.ipfs_fallback_hash
        return Address(f"{gateway.rstrip('/')}/ipfs/{cid}", revision=cid, has_facts=False)

    @contextmanager
    def _web(self, token: str | None, seconds: float) -> Iterator[_Listening]:
        """Yield a session that is cut off after so many seconds."""
        limits = replace(
            self._limits,
            connect_seconds=min(seconds, self._limits.connect_seconds),
            first_byte_seconds=min(seconds, self._limits.first_byte_seconds),
            buffer_bytes=min(MIB // 4, self._limits.buffer_bytes),
        )
        interrupt = Interrupt()
        timer = threading.Timer(seconds, interrupt.tell, [Reason.OPERATOR])
        timer.daemon = True
        timer.start()
        web = _Listening(Gate(self.policy, interrupt, limits), limits, Pace(None), token)
        try:
            yield web
        finally:
            timer.cancel()
            web.close()


class _Listening(Web):
    """A session that remembers what the first answer said."""

    status: int | None = None
    date = ""
    heard_at = 0.0

    def request(self, method: str, url: str, byte_range: tuple[int, int] | None) -> requests.Response:
        """Ask as always."""
        response = super().request(method, url, byte_range)
        if self.status is None:
            self.status, self.date, self.heard_at = response.status_code, response.headers.get("Date", ""), time.time()
        return response


@contextmanager
def _in_time(seconds: float) -> Iterator[None]:
    try:
        yield
    except InterruptedTransferError as error:
        raise TransientSourceError(f"no answer within {seconds:g} s") from error
