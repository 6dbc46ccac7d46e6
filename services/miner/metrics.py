"""What the miner exports; names and labels as the design fixes them, buckets as vLLM's users know them."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import pynvml
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from services.miner.engine.messages import Occupancy
from services.miner.served import ServedModel
from shared.metrics import CommonMetrics

FIRST_TOKEN_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
NEXT_TOKEN_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5)
REQUEST_BUCKETS = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960)
LOAD_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)


class Endpoint(StrEnum):
    """The endpoints that are counted."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"


ROUTES = {
    "/v1/chat/completions": Endpoint.CHAT,
    "/v1/completions": Endpoint.COMPLETIONS,
    "/v1/embeddings": Endpoint.EMBEDDINGS,
}


class Outcome(StrEnum):
    """How a request ended."""

    OK = "ok"
    INVALID = "invalid"
    UNAUTHORIZED = "unauthorized"
    BUSY = "busy"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    ERROR = "error"


class MinerMetrics:
    """All of `r3mes_miner_*`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.common = CommonMetrics(registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"r3mes_miner_{name}", text, labels, registry=registry)

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"r3mes_miner_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"r3mes_miner_{name}", text, buckets=buckets, registry=registry)

        self._running = gauge("requests_running", "Requests that the engine works on now.")
        self._waiting = gauge("requests_waiting", "Requests that wait for the engine.")
        self._cache = gauge("kv_cache_usage_ratio", "Share of the cache's cells that running requests hold.")
        self._stored = gauge("prefix_memory_tokens", "Tokens of unused prefixes that lie in memory, not in the cache.")
        self._offload = gauge("gpu_offload_active", "1 while layers of the served model run on a GPU.")
        self._fallback = gauge("engine_fallback", "1 while PyTorch serves a model that llama.cpp refuses to load.")
        self._info = gauge(
            "model_info",
            "The served model; the value is always 1.",
            ("sha256", "model", "engine", "quantization"),
        )
        self._requests = counter("requests_total", "Requests by how they ended.", ("endpoint", "outcome"))
        self._prompt_tokens = counter("prompt_tokens_total", "Prompt tokens of accepted requests.")
        self._generation_tokens = counter("generation_tokens_total", "Generated tokens.")
        self._prefix_hits = counter("prefix_cache_hit_tokens_total", "Prompt tokens taken from the cache.")
        self._preemptions = counter("preemptions_total", "Sequences put back to make room for older ones.")
        self._restarts = counter("engine_restarts_total", "Engine processes started because one had died.")
        self._first_token = histogram(
            "time_to_first_token_seconds", "From the accepted request to its first token.", FIRST_TOKEN_BUCKETS
        )
        self._next_token = histogram(
            "inter_token_latency_seconds", "From one token of a request to the next.", NEXT_TOKEN_BUCKETS
        )
        self._latency = histogram("request_latency_seconds", "From the accepted request to its end.", REQUEST_BUCKETS)
        self._queue = histogram("queue_seconds", "From the accepted request until the engine begins.", REQUEST_BUCKETS)
        self._load = histogram("model_load_seconds", "Loading a checked file into the engine.", LOAD_BUCKETS)
        self._seen_preemptions = 0
        for endpoint in Endpoint:
            for outcome in Outcome:
                self._requests.labels(endpoint, outcome)
        registry.register(GpuCollector())

    def occupied(self, occupancy: Occupancy) -> None:
        """Show how full the engine is."""
        self._running.set(occupancy.running)
        self._waiting.set(occupancy.waiting)
        self._cache.set(occupancy.cells_used / occupancy.cells)
        self._stored.set(occupancy.stored)
        self._preemptions.inc(max(occupancy.preemptions - self._seen_preemptions, 0))
        self._seen_preemptions = occupancy.preemptions

    def accepted(self, prompt_tokens: int) -> None:
        """Count the prompt of a request that goes to the engine."""
        self._prompt_tokens.inc(prompt_tokens)

    def left_queue(self, seconds: float) -> None:
        """Note how long a request waited for the engine."""
        self._queue.observe(seconds)

    def token(self, seconds: float, *, first: bool) -> None:
        """Count a generated token, `seconds` after the request (the first) or after the token before."""
        self._generation_tokens.inc()
        (self._first_token if first else self._next_token).observe(seconds)

    def reused(self, tokens: int) -> None:
        """Count prompt tokens that were in the cache already."""
        self._prefix_hits.inc(tokens)

    def ended(self, endpoint: Endpoint, outcome: Outcome, seconds: float | None) -> None:
        """Count a request; `seconds` is None when it never reached the engine."""
        self._requests.labels(endpoint, outcome).inc()
        if seconds is not None:
            self._latency.observe(seconds)

    def refused(self, path: str, outcome: Outcome) -> None:
        """Count a request that was refused before its endpoint saw it; other paths than the endpoints' are not."""
        if path in ROUTES:
            self.ended(ROUTES[path], outcome, None)

    def restarted(self) -> None:
        """Count an engine that is started because one had died."""
        self._restarts.inc()

    def serves(self, served: ServedModel | None) -> None:
        """Show the served model, or that there is none."""
        self._info.clear()
        self._offload.set(0)
        self._fallback.set(0)
        self._seen_preemptions = 0
        self.occupied(Occupancy())
        if served is not None:
            self._info.labels(served.pin.sha256, served.name, served.engine, served.quantization).set(1)
            self._offload.set(served.decision.offloads)
            self._fallback.set(served.fell_back)

    def loaded(self, seconds: float) -> None:
        """Note how long a load took."""
        self._load.observe(seconds)


class GpuCollector(Collector):
    """Reads NVIDIA's driver at each scrape; exports nothing where there is none."""

    def __init__(self) -> None:
        try:
            pynvml.nvmlInit()
            self._count = int(pynvml.nvmlDeviceGetCount())
        except pynvml.NVMLError:
            self._count = 0

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield utilisation (0 to 1) and used memory (bytes) of each GPU."""
        utilisation = GaugeMetricFamily(
            "r3mes_miner_gpu_utilization_ratio", "Share of time in which the GPU worked.", labels=["gpu"]
        )
        memory = GaugeMetricFamily("r3mes_miner_gpu_memory_used_bytes", "GPU memory in use.", labels=["gpu"])
        for index in range(self._count):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                utilisation.add_metric([str(index)], pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
                memory.add_metric([str(index)], pynvml.nvmlDeviceGetMemoryInfo(handle).used)
            except pynvml.NVMLError:
                continue  # a GPU that fell off the bus: its absence is what the alert sees
        yield utilisation
        yield memory
