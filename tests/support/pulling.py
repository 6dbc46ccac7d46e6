"""`r3mes pull` as a process over a store of the test's own, which an origin of ours feeds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from launcher.endpoints import DEFAULT_PORTS, demo_directory, write_endpoints
from services.downloader.transfer.incoming import read_journal
from tests.support.downloader_process import REPOSITORY, Downloader, sha256
from tests.support.downloader_stand import DATA, downloader
from tests.support.importing import R3MES
from tests.support.origin_server import ScriptedOrigin
from tests.support.waiting import wait_until

NOBODY = "http://127.0.0.1:9"
CID = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"
WRONG = DATA[:-1] + bytes([DATA[-1] ^ 1])


def alone(home: Path, origin: ScriptedOrigin, *models: dict[str, object], **environ: str) -> Downloader:
    """Return a host on which no service runs: on the usual ports there may be somebody else's stack."""
    on = downloader(home, origin, *models, **environ)
    directory = demo_directory(on.layout.root)
    directory.mkdir()
    write_endpoints(directory, dict.fromkeys(DEFAULT_PORTS, NOBODY))
    return on


def durable(on: Downloader, data: bytes = DATA) -> int:
    """Return how many bytes of the file are durable in incoming."""
    journal = read_journal(on.layout, sha256(data))
    return sum(end - start for start, end in journal.ranges) if journal else 0


class Pull:
    """One `r3mes pull` that runs; use as a context manager, which ends it."""

    def __init__(self, on: Downloader, *arguments: str, **environ: str) -> None:
        number = os.urandom(4).hex()
        self._stdout, self._stderr = on.home / f"pull-{number}.out", on.home / f"pull-{number}.err"
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*R3MES, "pull", *arguments],
                cwd=on.home,
                env={**on.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )

    @property
    def stdout(self) -> str:
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    def wait_for(self, text: str, timeout: float = 60) -> None:
        """Wait until it said so on stderr."""

        def said() -> bool:
            has_ended = self.process.poll() is not None
            if has_ended and text not in self.stderr:
                raise RuntimeError(f"it ended with {self.process.returncode}:\n{self.stderr}{self.stdout}")
            assert text in self.stderr, self.stderr
            return True

        wait_until(said, timeout, f"{text!r} to be said")

    def interrupt(self) -> int:
        """Send what Ctrl-C sends; return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.wait()

    def wait(self, timeout: float = 90) -> int:
        return self.process.wait(timeout)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()


@contextmanager
def verifier(on: Downloader, **environ: str) -> Iterator[None]:
    """Run the verifier of a downloader's store."""
    log_file = on.home / "verifier.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.verifier"],
            cwd=on.home,
            env={**on.environ, "R3MES_LISTEN": "127.0.0.1:0", "PYTHONPATH": str(REPOSITORY), **environ},
            stderr=log,
        )
    try:
        wait_until(lambda: b"verifier started" in log_file.read_bytes(), 60, "the verifier")
        yield
    finally:
        process.kill()
        process.wait()


def asked_twice(before: tuple[tuple[int, int], ...], asked: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the ranges that were asked for although they were durable before."""
    return [(start, end) for start, end in asked if any(start < last and first < end for first, last in before)]
