"""A bench for one source's turn: a store, an origin's address, short waits, and answers that a transfer meets."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from prometheus_client import CollectorRegistry

from services.downloader.interrupt import Interrupt
from services.downloader.limits import Limits
from services.downloader.metrics import DownloaderMetrics
from services.downloader.sources.connection import Gate
from services.downloader.sources.pacing import Pace
from services.downloader.sources.preflight import refuse_mismatch
from services.downloader.sources.session import Web
from services.downloader.sources.web import Address, WebSupply
from services.downloader.transfer.incoming import read_journal
from services.downloader.transfer.lease import Identity, LeaseKeeper
from services.downloader.transfer.outcomes import Outcome
from services.downloader.transfer.progress import Progress
from services.downloader.transfer.space import Room
from services.downloader.transfer.transfer import Errand, Transfer, Workshop
from shared.addresses import AddressPolicy
from shared.genesis import ModelPin
from shared.states import Source
from shared.store.layout import StoreLayout
from tests.support.downloader_process import sha256
from tests.support.origin_server import Answer, Script, ScriptedOrigin

RANGE = 64 * 1024
DATA = os.urandom(5 * RANGE + 123)
FAST = Limits(
    range_bytes=RANGE,
    buffer_bytes=16 * 1024,
    least_range_bytes=8 * 1024,
    journal_seconds=0.0,
    connect_seconds=2.0,
    first_byte_seconds=1.0,
    stall_seconds=0.5,
    stall_bytes=256,
    quiet_seconds=20.0,
    first_wait_seconds=0.01,
    longest_wait_seconds=0.05,
    soon_seconds=0.01,
)
PLENTY = Room(free=10**12)


@dataclass
class Bench:
    """A store and what is needed to run transfers on it."""

    root: Path
    origin: ScriptedOrigin
    limits: Limits = FAST
    room: Room = PLENTY
    connections: int = 1
    spread: bool = False
    failures: list[int] = field(default_factory=list)
    interrupt: Interrupt = field(default_factory=Interrupt)
    keeper: LeaseKeeper = field(default_factory=lambda: LeaseKeeper(Identity.of_this_process()))

    def __post_init__(self) -> None:
        self.layout = StoreLayout(self.root)
        self.layout.incoming.mkdir(exist_ok=True)
        self.metrics = DownloaderMetrics(CollectorRegistry(), self.layout.incoming)

    def pin(self, *, size: int | None = len(DATA), required: int = len(DATA)) -> ModelPin:
        return ModelPin("Tiny", "tiny.gguf", f"{self.origin.url}/file", sha256(DATA), required / 10**9, "", size)

    def run(
        self,
        pin: ModelPin | None = None,
        *,
        paths: tuple[str, ...] = ("/file",),
        source: Source = Source.HUGGINGFACE,
        environ: dict[str, str] | None = None,
        token: str | None = None,
        attempts: int = 0,
    ) -> Outcome:
        allowed = {"R3MES_ALLOW_HTTP_SOURCES": self.origin.host, **(environ or {})}
        policy = AddressPolicy.from_environ(allowed)
        chosen = pin or self.pin()
        limits = replace(self.limits, connections=self.connections)

        def make_web(interrupt: Interrupt) -> Web:
            return Web(Gate(policy, interrupt, limits), limits, Pace(None), token)

        has_facts = source is Source.HUGGINGFACE
        addresses = [Address(self._url(path), has_facts=has_facts) for path in paths]
        supply = WebSupply(
            source,
            addresses,
            make_web,
            lambda facts: refuse_mismatch(chosen, facts),
            self.connections,
            together=not has_facts,
            spread=self.spread,
        )
        errand = Errand(
            pin=chosen,
            source=source,
            supply=supply,
            interrupt=self.interrupt,
            progress=Progress(source),
            attempts=attempts,
            on_failures=self.failures.append,
        )
        return Transfer(Workshop(self.layout, self.keeper, limits, self.metrics, lambda _: self.room), errand).run()

    def _url(self, path: str) -> str:
        return path if path.startswith("http") else f"{self.origin.url}{path}"

    @property
    def data(self) -> bytes:
        return self.layout.data(sha256(DATA)).read_bytes()

    def is_complete(self) -> bool:
        journal = read_journal(self.layout, sha256(DATA))
        return journal is not None and journal.complete and self.data == DATA

    def durable(self) -> int:
        journal = read_journal(self.layout, sha256(DATA))
        return journal.durable_prefix if journal else 0

    def received(self) -> float:
        return self.metrics.registry.get_sample_value("r3mes_download_bytes_total", {"source": "huggingface"}) or 0.0

    def attempts(self, outcome: str) -> float:
        labels = {"source": "huggingface", "outcome": outcome}
        return self.metrics.registry.get_sample_value("r3mes_download_attempts_total", labels) or 0.0


def content_range(start: int, end: int, size: int = len(DATA)) -> dict[str, object]:
    return {"Content-Range": f"bytes {start}-{end - 1}/{size}", "Content-Length": end - start}


def cut_after(count: int, headers: dict[str, object]) -> Script:
    """Serve ranges rightly until `count` bytes have left, then cut every body at once."""
    left = [count]

    def script(answer: Answer) -> None:
        start, end = answer.seen.range or (0, len(DATA))
        end = min(end, len(DATA))
        answer.head(206, {**content_range(start, end), **headers})
        now = min(left[0], end - start)
        answer.body(DATA[start : start + now])
        if answer.seen.method != "HEAD":
            left[0] -= now
            if now < end - start:
                answer.cut()

    return script
