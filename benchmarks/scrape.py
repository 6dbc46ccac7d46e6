"""`make bench-scrape`: what a scrape of /metrics costs while a service works, and what it takes from the tokens.

Real processes on loopback: a miner with four clients that generate with the real model, a downloader that downloads, a
verifier that hashes. A scrape's own CPU is measured while the process has nothing else to do. What a scrape every five
seconds costs of tokens per second is measured in pairs of windows, with and without, the order turned each time.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

from benchmarks.miner.levels import percentile
from benchmarks.results import Judged, keep, machine, table
from launcher.redis_server import RedisServer
from shared.queue import VerifyQueue
from shared.redis_link import RedisLink
from tests.integration.miner.stand import Miner
from tests.integration.miner.stand import Store as MinerStore
from tests.support.downloader_process import Downloader
from tests.support.geneses import entry as pin_of
from tests.support.log_reader import LogReader
from tests.support.verifier_process import VerifierProcess
from tests.support.verifier_store import Store, entry, sha256_of
from tests.support.waiting import wait_until

ROUNDS = 10  # pairs of windows
WINDOW_SECONDS = 20.0
INTERVAL_SECONDS = 5.0  # of monitoring/prometheus/prometheus.yml
CLIENTS = 4
SCRAPES = 200
PAUSE_SECONDS = 0.05
SIZE = 2 * 10**9
PACE = 100e6
DIGEST = sha256_of(b"a model that never comes")
TEXT = "Tell me a long story about a fox and a river."


@dataclass(frozen=True, slots=True)
class Scraped:
    """The scrapes of one service: seconds of each while it worked, CPU seconds of one while it rested, bytes."""

    service: str
    load: str
    seconds: tuple[float, ...]
    cpu: float
    size: int

    def row(self) -> tuple[str, ...]:
        milliseconds = [f"{percentile(self.seconds, share) * 1000:.1f} ms" for share in (0.5, 0.99)]
        each = f"{self.cpu * 1000:.2f} ms"
        return (self.service, self.load, str(len(self.seconds)), *milliseconds, each, f"{self.size / 1000:.1f} kB")


@dataclass(frozen=True, slots=True)
class Pair:
    """Tokens per second in two windows that follow each other, with scrapes and without."""

    scraped: float
    alone: float

    @property
    def ratio(self) -> float:
        return self.scraped / self.alone


class Scraper:
    """Reads a service's metrics over one connection, as Prometheus does."""

    def __init__(self, url: str, pid: int) -> None:
        self._url = f"{url}/metrics"
        self._process = psutil.Process(pid)
        self._session = requests.Session()
        self.size = 0

    def scrape(self) -> float:
        """Scrape once and return the seconds that it took."""
        begun = time.perf_counter()
        answer = self._session.get(self._url, timeout=30)
        seconds = time.perf_counter() - begun
        answer.raise_for_status()
        self.size = len(answer.content)
        return seconds

    def while_working(self, works: Callable[[], bool], most: int) -> tuple[float, ...]:
        """Scrape again and again while the service works."""
        found: list[float] = []
        while len(found) < most and works():
            found.append(self.scrape())
            time.sleep(PAUSE_SECONDS)
        return tuple(found)

    def cpu_of_one(self, count: int) -> float:
        """Return the CPU seconds that one scrape takes of a process that has nothing else to do."""
        rested = self._cpu_of(lambda: time.sleep(2.0)) / 2.0
        begun = time.monotonic()
        used = self._cpu_of(lambda: [self.scrape() for _ in range(count)])
        return max(0.0, used - rested * (time.monotonic() - begun)) / count

    def _cpu_of(self, work: Callable[[], object]) -> float:
        before = self._process.cpu_times()
        work()
        after = self._process.cpu_times()
        return after.user - before.user + after.system - before.system


@contextmanager
def generating(miner: Miner) -> Iterator[None]:
    """Let four clients stream answers, one after the other, until the end."""
    stop = threading.Event()

    def one(number: int) -> None:
        while not stop.is_set():
            fields = {"stream": True, "max_tokens": 200, "ignore_eos": True}
            with miner.chat(f"{TEXT} Part {number}.", **fields) as answer:
                answer.raise_for_status()
                for _ in answer.iter_lines():
                    if stop.is_set():
                        return

    clients = [threading.Thread(target=one, args=(number,), daemon=True) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        wait_until(lambda: miner.metric("r3mes_miner_requests_running") == CLIENTS, 60, "four clients generate")
        yield
    finally:
        stop.set()
        for client in clients:
            client.join()


def tokens_per_second(miner: Miner, seconds: float, scraper: Scraper | None) -> float:
    """Return the miner's rate over a window, in which it is scraped every five seconds or not at all."""
    name = "r3mes_miner_generation_tokens_total"
    begun, before = time.monotonic(), miner.metric(name)
    until = begun + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, INTERVAL_SECONDS))
        if scraper and time.monotonic() < until:
            scraper.scrape()
    return (miner.metric(name) - before) / (time.monotonic() - begun)


def compare(rate: Callable[[bool], float], rounds: int) -> list[Pair]:
    """Return so many pairs; `rate(is_scraped)` measures one window, and each pair begins with the other kind."""
    found = []
    for number in range(rounds):
        order = (True, False) if number % 2 else (False, True)
        rates = {is_scraped: rate(is_scraped) for is_scraped in order}
        found.append(Pair(rates[True], rates[False]))
    return found


def measure_miner(home: Path, options: argparse.Namespace) -> tuple[Scraped, list[Pair]]:
    store = MinerStore(home)
    store.put_model()
    with Miner(store, {"R3MES_THREADS": str(options.threads)}) as miner:
        miner.wait_ready()
        scraper = Scraper(miner.url, miner.pid)
        miner.chat("Say something.", max_tokens=8).raise_for_status()
        cpu = scraper.cpu_of_one(options.scrapes)
        with generating(miner):
            seconds = scraper.while_working(lambda: True, options.scrapes)
            pairs = compare(
                lambda is_scraped: tokens_per_second(miner, options.window, scraper if is_scraped else None),
                options.rounds,
            )
        return Scraped("miner", f"{CLIENTS} clients generate", seconds, cpu, scraper.size), pairs


@contextmanager
def origin(file: Path, name: str) -> Iterator[str]:
    """Serve a file as Hugging Face does, at a pace, in a process of its own; yield the address."""
    command = [sys.executable, "-m", "launcher.origin", "--file", str(file), "--name", name, "--pace", str(PACE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None:
            raise RuntimeError("the origin has no output")
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def measure_downloader(home: Path, options: argparse.Namespace) -> Scraped:
    file = sparse(home / "origin.gguf", options.size)
    sha256 = sha256_of_zeros(options.size)
    pin = pin_of(verification_sha256=sha256, required_disk_space_gb=options.size / 10**9, size_bytes=options.size)
    with (
        origin(file, "tiny.gguf") as url,
        Downloader(home / "downloader", pin, environ={"HF_ENDPOINT": url}) as service,
    ):
        scraper = Scraper(service.url, service.process.pid)
        service.wait_received(sha256, 1)
        seconds = scraper.while_working(lambda: service.status(sha256)["state"] == "downloading", options.scrapes)
        service.ask(sha256, "pause")
        cpu = scraper.cpu_of_one(options.scrapes)
        return Scraped("downloader", f"downloads at {PACE / 1e6:.0f} MB/s", seconds, cpu, scraper.size)


def measure_verifier(home: Path, options: argparse.Namespace) -> Scraped:
    store = Store.make(home / "models", entry(DIGEST))
    with RedisServer(home / "redis") as redis:
        verifier = VerifierProcess(store, redis.url, home)
        try:
            verifier.wait_until_ready()
            started = LogReader(verifier.log_file, whole=True).last("verifier started")
            scraper = Scraper(f"http://127.0.0.1:{started and started['port']}", verifier.process.pid)
            cpu = scraper.cpu_of_one(options.scrapes)
            store.put(DIGEST, b"")
            sparse(store.layout.data(DIGEST), options.size)
            store.write_journal(DIGEST, size=options.size)
            link = RedisLink(redis.url)
            VerifyQueue(link, "local").enqueue(DIGEST)
            seconds = scraper.while_working(lambda: not any(store.layout.rejected.iterdir()), options.scrapes)
            link.close()
            return Scraped("verifier", f"copies and hashes {options.size / 1e9:g} GB", seconds, cpu, scraper.size)
        finally:
            verifier.kill()


def sparse(path: Path, size: int) -> Path:
    """Make a file of zeros that takes no room."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.truncate(size)
    return path


def sha256_of_zeros(size: int) -> str:
    with tempfile.TemporaryDirectory() as home:
        return subprocess.run(
            ["sha256sum", sparse(Path(home) / "zeros", size)], check=True, capture_output=True, text=True
        ).stdout.split()[0]


def judge(found: Sequence[Scraped], pairs: Sequence[Pair]) -> list[Judged]:
    """Hold the figures against what a scrape may cost."""
    worst = max(found, key=lambda one: percentile(one.seconds, 0.99))
    dearest = max(found, key=lambda one: one.cpu)
    largest = max(found, key=lambda one: one.size)
    spread = ", ".join(f"{pair.ratio:.3f}" for pair in pairs)
    timeout = "4 s is Prometheus' patience"
    return [
        Judged("p99 of a scrape under load", percentile(worst.seconds, 0.99), 1.0, "s", f"{worst.service}; {timeout}"),
        Judged("CPU of a scrape", 1000 * dearest.cpu, 20.0, "ms", f"{dearest.service}; at rest"),
        Judged("size of a scrape", largest.size / 1000, 64.0, "kB", largest.service),
        Judged(
            "tokens/s, scraped every 5 s / not at all", statistics.median(pair.ratio for pair in pairs), 0.98,
            note=f"median of pairs: {spread}", at_least=True,
        ),
    ]  # fmt: skip


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scrape", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="pairs of windows")
    parser.add_argument("--window", type=float, default=WINDOW_SECONDS, help="seconds of each")
    parser.add_argument("--scrapes", type=int, default=SCRAPES)
    parser.add_argument("--size", type=lambda text: int(float(text)), default=SIZE, help="bytes to load and to verify")
    parser.add_argument("--threads", type=int, default=2, help="of the miner")
    parser.add_argument("--beside", metavar="WHAT", help="other load of this machine, to be named in the results")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, keep them; 0 when every target is met."""
    options = parsed(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no service is left behind
    before = machine()
    print(before, flush=True)
    with tempfile.TemporaryDirectory(prefix="r3mes-bench-") as name:
        homes = [Path(name) / part for part in ("miner", "downloader", "verifier")]
        for home in homes:
            home.mkdir()
        miner, pairs = measure_miner(homes[0], options)
        found = [miner, measure_downloader(homes[1], options), measure_verifier(homes[2], options)]
    judged = judge(found, pairs)
    facts = f"{before} ({machine().rpartition('load average ')[2]} after)."
    facts += f" Beside other load, which these figures are not free of: {options.beside}." if options.beside else ""
    head = ("service", "while it", "scrapes", "median", "p99", "CPU of one", "size")
    rates = table(
        ("pair", "scraped every 5 s", "not scraped", "ratio"),
        [
            (str(at + 1), f"{pair.scraped:.1f} tokens/s", f"{pair.alone:.1f} tokens/s", f"{pair.ratio:.3f}")
            for at, pair in enumerate(pairs)
        ],
    )
    verdicts = table(("what", "found", "target", "", "note"), [figure.row() for figure in judged])
    title = f"Scrape of /metrics, {options.rounds} pairs of {options.window:g} s"
    paragraphs = [facts, table(head, [one.row() for one in found]), rates, verdicts]
    print("\n" + "\n\n".join([title, *paragraphs]))
    if options.rounds >= ROUNDS or options.beside:
        keep(title, paragraphs)
    return 0 if all(figure.met for figure in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
