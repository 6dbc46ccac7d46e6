"""A miner to measure: the one that runs, else one of our own on a free port, gone when the measurement is over."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import requests

from launcher.bench.figures import Missing
from launcher.doctor.subject import Subject
from launcher.endpoints import LOOPBACK, ClientSettings, base_url, session
from launcher.interrupts import StoppedError
from launcher.ports import free_port
from launcher.tied import tied
from shared.genesis import ModelPin
from shared.store.verified import has_right_receipt

LOAD_SECONDS = 90.0  # an 8B from a slow disk
STOP_SECONDS = 10.0
ANSWER_SECONDS = 5.0
_POLL_SECONDS = 0.1
_PROJECT = Path(__file__).resolve().parents[2]
_FIRST = "`r3mes demo` shows the whole chain; `make up` or the services themselves bring a miner"


@dataclass(frozen=True, slots=True)
class Found:
    """A miner that answers: where, which model, and words for a person."""

    url: str
    model: str
    where: str


def running_miner(settings: ClientSettings, *, offline: bool = False) -> Found | None:
    """Return the miner of a stack that runs and is ready; with `offline` only one of this host."""
    url = base_url(settings, "miner")
    if offline and urlsplit(url).hostname not in {LOOPBACK, "localhost", "::1"}:
        return None
    try:
        with session(settings.api_key) as client:
            model = client.get(f"{url}/v1/models", timeout=ANSWER_SECONDS).json()["data"][0]["id"]
    except (requests.RequestException, ValueError, LookupError, TypeError):
        return None  # nobody, somebody else, or nothing loaded yet
    return Found(url, str(model), f"the miner at {url}")


@contextmanager
def own_miner(subject: Subject, say: Callable[[str], None], stop: threading.Event) -> Iterator[Found | Missing]:
    """Start a miner on a model that is verified here, and end it; raises StoppedError.

    To be called by a thread that stays as long as the miner: the kernel ties it to that one.
    """
    pin = _verified(subject)
    if pin is None:
        yield Missing("inference", "no miner runs, and no pinned model is verified here", _FIRST)
        return
    if not (_PROJECT / "services" / "miner").is_dir() or importlib.util.find_spec("llama_cpp") is None:
        yield Missing("inference", "no miner runs, and none is installed here", _FIRST)
        return
    with tempfile.TemporaryFile() as log:
        port = free_port()
        say(f"no miner runs: starting one for {pin.model_name} on port {port}, for this measurement alone")
        process = _start(_environment(subject, pin, port), log)
        try:
            why = _wait(process, port, stop)
            if why:
                yield Missing("inference", f"a miner of its own did not get ready: {why}", "r3mes doctor")
            else:
                yield Found(f"http://{LOOPBACK}:{port}", pin.model_name, f"{pin.model_name}, a miner of its own")
        finally:
            _end(process)


def _verified(subject: Subject) -> ModelPin | None:
    wanted = subject.environ.get("R3MES_MODEL")
    ready = [pin for pin in subject.pins if has_right_receipt(subject.layout, pin.sha256, pin.file_name)]
    return next((pin for pin in ready if wanted in {None, pin.model_name}), None)


def _environment(subject: Subject, pin: ModelPin, port: int) -> dict[str, str]:
    dropped = {"R3MES_API_KEYS", "R3MES_API_KEYS_FILE", "R3MES_IDLE_UNLOAD_SECONDS"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    own = {
        "R3MES_LISTEN": f"{LOOPBACK}:{port}",
        "R3MES_MODEL": pin.model_name,
        "R3MES_MODELS_DIR": str(subject.layout.root),
        "R3MES_DRAIN_SECONDS": "0",
        "PYTHONPATH": str(_PROJECT),
    }
    return {**kept, **own}


def _start(environment: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  our own command line
        tied([sys.executable, "-P", "-m", "services.miner"]),
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,  # a terminal's Ctrl-C is for us, who then end it
    )


def _wait(process: subprocess.Popen[bytes], port: int, stop: threading.Event) -> str:
    """Wait until it is ready; return why it is not."""
    deadline, reason = time.monotonic() + LOAD_SECONDS, "it takes too long"
    with session() as client:
        while time.monotonic() < deadline:
            if stop.wait(_POLL_SECONDS):
                raise StoppedError
            if (code := process.poll()) is not None:
                return f"it ended with exit code {code}"
            with suppress(requests.RequestException, ValueError):
                document = client.get(f"http://{LOOPBACK}:{port}/readyz", timeout=2).json()
                if document["ready"]:
                    return ""
                reason = str(document["reason"])
    return reason


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it and its engine: the whole group, before the leader is reaped and its number free for others."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline and _lives(process):
        time.sleep(_POLL_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _lives(process: subprocess.Popen[bytes]) -> bool:
    if process.returncode is not None:
        return False
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
