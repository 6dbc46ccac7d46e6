"""`make metrics`: write docs/metrics.md from the metrics that the services define; a test holds that it is current."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from services.downloader.metrics import DownloaderMetrics
from services.miner.metrics import GpuCollector, MinerMetrics
from services.verifier.metrics import VerifierMetrics

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
_HEAD = """# Metrics

Made by `make metrics` from the code; do not change it here. Every service answers `GET /metrics` on its own port,
inside the stack's networks; Prometheus (port 9090) reads them every five seconds. Labels are bounded by the genesis and
by the values named here: a miner has at most 180 series and two for each GPU, whatever it is asked and however often
its engine is started again. Counters begin at 0 with each start of a process, as Prometheus expects.

`monitoring/prometheus/rules/names.yml` gives the miner's also under the names that dashboards for vLLM (`vllm:…`) and
llama-server (`llamacpp:…`) ask for; `rules/alerts.yml` are the alerts ([runbook.md](runbook.md)). The gateway has
HAProxy's own metrics (`haproxy_…`), where the back ends of the miners are `miners` and, with several models, `model_…`.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One metric, as a reader sees it; `labels` with the values that are there from the start."""

    name: str
    kind: str
    text: str
    labels: dict[str, tuple[str, ...]]

    def line(self) -> str:
        """Return its row of the table."""
        return f"| `{self.name}` | {self.kind} | {'; '.join(self._labels()) or 'none'} | {self.text} |"

    def _labels(self) -> Iterator[str]:
        for label, values in self.labels.items():
            yield f"`{label}`" + (f": {', '.join(values)}" if values else "")


def rows(registry: CollectorRegistry) -> list[Row]:
    """Return every metric of a registry, with the values of labels that are there from the start."""
    found = []
    for collector in list(registry._collector_to_names):  # noqa: SLF001  (the library tells label names nowhere else)
        if isinstance(collector, GpuCollector):
            continue  # by hand, below: without a GPU it names none
        names = tuple(getattr(collector, "_labelnames", ()))
        for family in collector.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            samples = [sample.labels for sample in family.samples]
            values = {label: tuple(dict.fromkeys(one[label] for one in samples if one.get(label))) for label in names}
            found.append(Row(name, family.type, family.documentation, values))
    return found


def services() -> Iterator[tuple[str, list[Row]]]:
    """Yield each service with its metrics."""
    makers: dict[str, Callable[[CollectorRegistry], object]] = {
        "downloader": lambda registry: DownloaderMetrics(registry, Path("/")),
        "verifier": VerifierMetrics,
        "miner": MinerMetrics,
    }
    for service, make in makers.items():
        registry = CollectorRegistry()
        make(registry)
        found = rows(registry)
        if service == "miner":
            found += [Row(one.name, one.type, one.documentation, {"gpu": ()}) for one in GpuCollector().collect()]
        yield service, found


def page() -> str:
    """Return the whole page."""
    every = list(services())
    common = set.intersection(*({row.name for row in found} for _, found in every))
    parts = [_HEAD]
    head = "\n| metric | type | labels | meaning |\n|---|---|---|---|\n"
    shared = [row for row in every[0][1] if row.name in common]
    parts.append("\n## Every service\n" + head + "\n".join(row.line() for row in shared) + "\n")
    for service, found in every:
        own = [row.line() for row in found if row.name not in common]
        parts.append(f"\n## {service.capitalize()}\n" + head + "\n".join(own) + "\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
