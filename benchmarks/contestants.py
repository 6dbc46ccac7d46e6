"""The tools that are compared: each takes one file from the origin to a new directory and has it durable on disk.

`Run.transfer` is the time in which a tool could transfer: for curl and aria2c from their start; for the two Python
programs from the moment at which they begin (ours: its log line "transfer begins"; hf_hub_download: the call), to the
last durable byte. `Run.whole` counts from the start of the process. Peers are synced by us, inside the timed part.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import venv
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shared.version import __version__
from tests.support.downloader_process import Downloader
from tests.support.geneses import entry

REPOSITORY = Path(__file__).parents[1]
HF_VENV = REPOSITORY / "benchmarks" / ".venv"
FILE_PATH = "org/model/resolve/main/model.gguf"
RUN_SECONDS = 600
POLL_SECONDS = 0.005
CONNECTIONS = 8


class MissingToolError(Exception):
    """A tool of the benchmark is not installed; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be taken from where; `home` is new and on the file system that is measured."""

    url: str
    cdn_url: str
    sha256: str
    size: int
    home: Path

    @property
    def hosts(self) -> str:
        """The `host:port` of hub and CDN, separated by a comma."""
        return ",".join(urlsplit(url).netloc for url in (self.url, self.cdn_url))


@dataclass(frozen=True, slots=True)
class Run:
    """One download: seconds, where the bytes lie, and the peak memory of the process (bytes; None: not looked at)."""

    transfer: float
    whole: float
    file: Path
    peak_rss: int | None = None


class Contestant(ABC):
    """A tool."""

    name: str

    @abstractmethod
    def version(self) -> str:
        """Return its version; raises MissingToolError."""

    @abstractmethod
    def download(self, task: Task) -> Run:
        """Download once; raises when it fails."""


class Curl(Contestant):
    name = "curl"

    def version(self) -> str:
        return _first_line("curl", "--version", hint="apt-get install curl")

    def download(self, task: Task) -> Run:
        file = task.home / "model.gguf"
        return _timed(["curl", "-sS", "--fail", "-L", "-o", str(file), f"{task.url}/{FILE_PATH}"], file)


class Aria2(Contestant):
    """With fallocate, which is faster for it than its default."""

    name = f"aria2c -x{CONNECTIONS} -s{CONNECTIONS}"

    def version(self) -> str:
        return _first_line("aria2c", "--version", hint="apt-get install aria2")

    def download(self, task: Task) -> Run:
        where = ["-d", str(task.home), "-o", "model.gguf", f"{task.url}/{FILE_PATH}"]
        how = ["--no-conf", "-q", f"-x{CONNECTIONS}", f"-s{CONNECTIONS}", "--file-allocation=falloc"]
        return _timed(["aria2c", *how, *where], task.home / "model.gguf")


class HfHubDownload(Contestant):
    """huggingface_hub in an environment of its own, over plain HTTP (without xet, which the origin does not speak)."""

    name = "hf_hub_download"
    _CALL = """
import json, os, sys, time
from huggingface_hub import hf_hub_download
begun = time.time()
path = os.path.realpath(hf_hub_download("org/model", "model.gguf", cache_dir=sys.argv[1]))
print(json.dumps({"begun": begun, "path": path}))
"""

    def version(self) -> str:
        self._install()
        say = "import huggingface_hub; print('huggingface_hub', huggingface_hub.__version__)"
        return _first_line(str(HF_VENV / "bin" / "python"), "-c", say, hint="remove benchmarks/.venv and try again")

    def download(self, task: Task) -> Run:
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(task.home),
            "HF_HOME": str(task.home / "hf"),
            "HF_ENDPOINT": task.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        command = [str(HF_VENV / "bin" / "python"), "-c", self._CALL, str(task.home / "cache")]
        started = time.time()
        done = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE, timeout=RUN_SECONDS)
        told = json.loads(done.stdout.splitlines()[-1])
        file = Path(told["path"])
        _sync(file)
        ended = time.time()
        return Run(ended - told["begun"], ended - started, file)

    def _install(self) -> None:
        if not (HF_VENV / "installed").exists():
            print(f"installing huggingface_hub into {HF_VENV.relative_to(REPOSITORY)}")
            venv.create(HF_VENV, with_pip=True, clear=True)
            pip = [str(HF_VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-qq"]
            subprocess.run([*pip, "install", "huggingface_hub"], check=True)
            (HF_VENV / "installed").touch()


class Ours(Contestant):
    """The downloader as a process of its own, without Redis and verifier: neither is needed for the bytes."""

    name = "r3mes"

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = dict(environ or {})

    def version(self) -> str:
        command = ["git", "describe", "--always", "--dirty"]
        commit = subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, text=True)
        return f"r3mes {__version__} {commit.stdout.strip()}".rstrip()

    def download(self, task: Task) -> Run:
        pinned = entry(
            verification_sha256=task.sha256,
            size_bytes=task.size,
            required_disk_space_gb=task.size / 10**9,
            download_source=f"{task.url}/{FILE_PATH}",
        )
        settings = {"R3MES_ALLOW_HTTP_SOURCES": task.hosts, "R3MES_DOWNLOAD_CONNECTIONS": str(CONNECTIONS)}
        stand = Downloader(task.home / "host", pinned, environ={**settings, **self._environ})
        started = time.time()
        with stand.log_file.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "services.downloader"], env=stand.environ, cwd=stand.home, stdout=log, stderr=log
            )
        try:
            ended = _moment(_wait_for_event(stand, process, "all bytes are here"))
            peak = _peak_rss(process.pid)
        finally:
            process.terminate()
            process.wait(30)
        begun = _moment(_wait_for_event(stand, None, "transfer begins"))
        return Run(ended - begun, ended - started, stand.layout.data(task.sha256), peak)


def _wait_for_event(stand: Downloader, process: subprocess.Popen[bytes] | None, name: str) -> dict[str, Any]:
    deadline = time.monotonic() + RUN_SECONDS
    while (event := stand.event(name)) is None:
        if process is None or process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"no {name!r} in the downloader's log:\n{stand.log[-2000:]}")
        time.sleep(POLL_SECONDS)
    return event


def _moment(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(str(event["timestamp"])).timestamp()


def _peak_rss(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _timed(command: list[str], file: Path) -> Run:
    started = time.time()
    subprocess.run(command, check=True, timeout=RUN_SECONDS, stdout=subprocess.DEVNULL)
    _sync(file)
    seconds = time.time() - started
    return Run(seconds, seconds, file)


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _first_line(program: str, *arguments: str, hint: str) -> str:
    if shutil.which(program) is None:
        raise MissingToolError(f"{program} is missing; next: {hint}")
    done = subprocess.run([program, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return " ".join(done.stdout.splitlines()[0].split()[:3]).removesuffix(" (x86_64-pc-linux-gnu)")
