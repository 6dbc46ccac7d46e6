"""Metrics that every process exports."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector

from shared.version import __version__


class CommonMetrics:
    """`r3mes_build_info{version}`, `r3mes_genesis_info{sha256}`, and `process_*`: start, memory, descriptors, CPU."""

    def __init__(self, registry: CollectorRegistry) -> None:
        ProcessCollector(registry=registry)
        build = Gauge("r3mes_build_info", "Version that runs; the value is always 1.", ["version"], registry=registry)
        build.labels(version=__version__).set(1)
        self._genesis = Gauge(
            "r3mes_genesis_info",
            "SHA-256 of the genesis that this process works with; the value is always 1.",
            ["sha256"],
            registry=registry,
        )

    def set_genesis(self, sha256: str) -> None:
        """Show `sha256` as the genesis in use, and no other."""
        self._genesis.clear()
        self._genesis.labels(sha256=sha256).set(1)
