"""The downloader's metrics: labels are bounded by the genesis and by the enumerations."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shared.metrics import CommonMetrics
from shared.states import ModelState, ModelStatus, Source

_DURATION_BUCKETS = (1, 5, 15, 30, 60, 120, 300, 600, 1200, 3600, 7200, 14400, 43200)
OUTCOMES = ("complete", "transient", "permanent", "upstream_mismatch")


class DownloaderMetrics:
    """Everything under `/metrics` of the downloader."""

    def __init__(self, registry: CollectorRegistry, incoming: Path) -> None:
        self.registry = registry
        self.common = CommonMetrics(registry)
        self._bytes = Counter("r3mes_download_bytes_total", "Bytes received, by source.", ["source"], registry=registry)
        self._attempts = Counter(
            "r3mes_download_attempts_total",
            "Tries of a source, by how they ended.",
            ["source", "outcome"],
            registry=registry,
        )
        self._fallbacks = Counter(
            "r3mes_download_fallbacks_total", "Times that IPFS took over from Hugging Face.", registry=registry
        )
        self._running = Gauge("r3mes_downloads_in_progress", "Transfers under way.", registry=registry)
        self._received = Gauge(
            "r3mes_download_received_bytes", "Bytes of a model that are here.", ["model"], registry=registry
        )
        self._expected = Gauge(
            "r3mes_download_expected_bytes", "Size of a model, 0 while unknown.", ["model"], registry=registry
        )
        self._duration = Histogram(
            "r3mes_download_duration_seconds",
            "Time of a source's turn that ended with the last byte.",
            ["source"],
            buckets=_DURATION_BUCKETS,
            registry=registry,
        )
        self._state = Gauge(
            "r3mes_model_state", "1 for the state that a model is in.", ["model", "state"], registry=registry
        )
        self._veto = Gauge(
            "r3mes_chain_veto", "1 while the chain disagrees with a model's pin.", ["model"], registry=registry
        )
        free = Gauge("r3mes_disk_free_bytes", "Free bytes of the store's file system.", registry=registry)
        free.set_function(lambda: _free_bytes(incoming))  # not of the store's root: in a container that is no mount
        for source in Source:  # series that exist from the start make rates right from the first event
            self._bytes.labels(source=source)
            for outcome in OUTCOMES:
                self._attempts.labels(source=source, outcome=outcome)

    def received(self, source: Source, count: int) -> None:
        """Count bytes from a source."""
        self._bytes.labels(source=source).inc(count)

    def attempt(self, source: Source, outcome: str) -> None:
        """Count a try by its outcome, one of OUTCOMES."""
        self._attempts.labels(source=source, outcome=outcome).inc()

    def fallback(self) -> None:
        """Count a turn of IPFS that follows a failure of Hugging Face."""
        self._fallbacks.inc()

    def running(self, count: int) -> None:
        """Show how many transfers run."""
        self._running.set(count)

    def finished(self, source: Source, seconds: float) -> None:
        """Observe the time of a turn that ended with the last byte."""
        self._duration.labels(source=source).observe(seconds)

    def show(self, status: ModelStatus, *, is_vetoed: bool = False) -> None:
        """Show a model's state and bytes; `is_vetoed`: the chain disagrees with its pin, also if it is verified."""
        name = status.model_name
        self._received.labels(model=name).set(status.received_bytes)
        self._expected.labels(model=name).set(status.expected_bytes or 0)
        self._veto.labels(model=name).set(1 if is_vetoed else 0)
        for state in ModelState:
            self._state.labels(model=name, state=state).set(1 if state is status.state else 0)

    def keep_only(self, models: Iterable[str]) -> None:
        """Forget the series of models that are not pinned any more."""
        kept = set(models)
        for gauge in (self._received, self._expected, self._veto, self._state):
            for labels in {tuple(sample.labels.items()) for metric in gauge.collect() for sample in metric.samples}:
                if dict(labels)["model"] not in kept:
                    gauge.remove(*dict(labels).values())


def _free_bytes(place: Path) -> float:
    try:
        return float(shutil.disk_usage(place).free)
    except OSError:
        return float("nan")
