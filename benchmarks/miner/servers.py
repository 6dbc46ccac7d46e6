"""The servers, each a real process with the same flags: 2 threads, 32,768 cells, 16 sequences, the same file."""

from __future__ import annotations

import contextlib
import json
import platform
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from benchmarks.miner.peers import llama_cpp_programs, llama_cpp_server, pinned
from tests.integration.miner.stand import MODEL_NAME, Miner, Store, model_file
from tests.support.waiting import wait_until

THREADS = 2
CELLS = 32_768
SLOTS = 16
READY_SECONDS = 180.0
STOP_SECONDS = 20.0
BENCH_SECONDS = 1_800.0

OURS, LLAMA_SERVER, LLAMA_CPP_SERVER, BATCHED_BENCH = "ours", "llama-server", "llama_cpp.server", "batched-bench"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server answers, and the name of its model."""

    url: str
    model: str


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server: how it is started, and the levels that would say nothing about it."""

    name: str
    running: Callable[[], AbstractContextManager[Address]]
    left_out: frozenset[str] = frozenset()


@contextmanager
def _ours() -> Iterator[Address]:
    environment = {
        "R3MES_THREADS": str(THREADS),
        "R3MES_N_CTX": str(CELLS),
        "R3MES_MAX_SEQUENCES": str(SLOTS),
    }
    with tempfile.TemporaryDirectory(prefix="r3mes-bench-") as home:
        store = Store(Path(home))
        store.put_model()
        with Miner(store, environment) as miner:
            miner.wait_ready(READY_SECONDS)
            yield Address(miner.url, MODEL_NAME)


@contextmanager
def _process(command: Sequence[str | Path], port: int, ready: str) -> Iterator[Address]:
    """Run a server until it answers 200 to `ready`; raises RuntimeError with what it said if it ends before."""
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process,
    ):

        def answers() -> bool:
            if process.poll() is not None:
                log.seek(0)
                raise RuntimeError(f"{command[0]} ended: {log.read().decode(errors='replace')[-2000:]}")
            with contextlib.suppress(requests.ConnectionError):
                return requests.get(f"http://127.0.0.1:{port}{ready}", timeout=10).ok
            return False

        try:
            wait_until(answers, READY_SECONDS, f"{command[0]} answers")
            yield Address(f"http://127.0.0.1:{port}", "model")
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _llama_server() -> AbstractContextManager[Address]:
    port = free_port()
    return _process(
        [llama_cpp_programs() / LLAMA_SERVER, "-m", model_file(), "-t", str(THREADS), "-c", str(CELLS),
         "-np", str(SLOTS), "--host", "127.0.0.1", "--port", str(port)],
        port, "/health",
    )  # fmt: skip


def _llama_cpp_server() -> AbstractContextManager[Address]:
    port = free_port()
    return _process(
        [llama_cpp_server(), "-m", "llama_cpp.server", "--model", model_file(), "--n_ctx", str(CELLS),
         "--n_threads", str(THREADS), "--n_threads_batch", str(THREADS), "--interrupt_requests", "false",
         "--host", "127.0.0.1", "--port", str(port)],
        port, "/v1/models",
    )  # fmt: skip


# llama_cpp.server answers one request after the other: sixteen clients wait sixteen times as long and tell nothing more
# than four, and while streams run, a long prompt waits for their ends.
SERVERS = (
    Contestant(OURS, _ours),
    Contestant(LLAMA_SERVER, _llama_server),
    Contestant(LLAMA_CPP_SERVER, _llama_cpp_server, frozenset({"16", "shared", "burst", "stall"})),
)


def batched_bench(prompt: int, answer: int, clients: Sequence[int]) -> dict[int, float]:
    """Return generated tokens per second, prompts included, that llama.cpp itself gives at each number of clients."""
    command: list[str | Path] = [
        llama_cpp_programs() / "llama-batched-bench", "-m", model_file(), "-t", str(THREADS), "-c", str(CELLS),
        "-npp", str(prompt), "-ntg", str(answer), "-npl", ",".join(map(str, clients)), "--output-format", "jsonl",
    ]  # fmt: skip
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=BENCH_SECONDS)
    return parse_batched_bench(ran.stdout)


def parse_batched_bench(output: str) -> dict[int, float]:
    """Read its lines: {sequences: generated tokens per second of prompt and generation together}."""
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return {line["pl"]: line["pl"] * line["tg"] / (line["t_pp"] + line["t_tg"]) for line in lines}


def free_port() -> int:
    """Return a port of loopback that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def prepare(names: Sequence[str]) -> None:
    """Build and install what these need, so that no round waits for it."""
    if LLAMA_SERVER in names or BATCHED_BENCH in names:
        llama_cpp_programs()
    if LLAMA_CPP_SERVER in names:
        llama_cpp_server()


def version() -> str:
    """Return which llama.cpp it is, on both sides."""
    return f"llama-cpp-python {pinned().version}, Python {platform.python_version()}"
