"""The real downloader as a process, a store for it, and the verifier's part of the work done by hand."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from shared.states import Source
from shared.store.layout import StoreLayout
from shared.store.records import Journal, Receipt, RejectedRecord, StatIdentity
from tests.support.geneses import entry, list_form
from tests.support.log_reader import LogReader
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
NO_REDIS = "redis://127.0.0.1:1/0"
MIB = 1024 * 1024


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def model(data: bytes, **changes: object) -> dict[str, object]:
    """Return the genesis entry of a file, whose size is pinned."""
    fields = {
        "verification_sha256": sha256(data),
        "required_disk_space_gb": max(len(data), 1) / 10**9,
        "size_bytes": len(data),
    }
    return entry(**{**fields, **changes})


class Downloader:
    """One downloader process; `environ` beyond the store, a Redis that is not there, and a port of its own."""

    module = "services.downloader"

    def __init__(self, home: Path, *models: dict[str, object], environ: Mapping[str, str] | None = None) -> None:
        self.home = home
        home.mkdir(exist_ok=True)
        self.genesis = home / "genesis.json"
        self.genesis.write_bytes(list_form(*models))
        self.layout = StoreLayout(home / "models")
        self.log_file = home / "downloader.log"
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "PYTHONPATH": str(REPOSITORY),
            "R3MES_GENESIS": str(self.genesis),
            "R3MES_MODELS_DIR": str(self.layout.root),
            "R3MES_LISTEN": "127.0.0.1:0",
            "R3MES_REDIS_URL": NO_REDIS,
            "R3MES_NODE": "local",
            "R3MES_RECONCILE_SECONDS": "1",
            **(environ or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> Self:
        """Start it and wait until it is ready."""
        lines = LogReader(self.log_file)
        self.launch()
        started = wait_until(lambda: lines.last("downloader started"), 30, "the downloader's start")
        self.url = f"http://127.0.0.1:{started['port']}"
        wait_until(self.is_ready, 30, "the downloader to be ready")
        return self

    def launch(self) -> None:
        """Start it and wait for nothing."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module], env=self.environ, cwd=self.home, stderr=log, stdout=log
            )

    def run_to_end(self, timeout: float = 30) -> int:
        """Start it and return its exit code."""
        self.launch()
        assert self._process is not None
        return self._process.wait(timeout)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process that was started last and was neither killed nor terminated."""
        assert self._process is not None
        return self._process

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def terminate(self) -> tuple[int, float]:
        """SIGTERM; return the exit code and the seconds that it took."""
        assert self._process is not None
        begun = time.monotonic()
        self._process.terminate()
        code = self._process.wait(30)
        self._process = None
        return code, time.monotonic() - begun

    def is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        return requests.get(f"{self.url}/readyz", timeout=5).status_code == 200

    def get(self, path: str) -> dict[str, Any]:
        answer = requests.get(f"{self.url}{path}", timeout=10)
        answer.raise_for_status()
        return dict(answer.json())

    def status(self, digest: str) -> dict[str, Any]:
        return self.get(f"/api/v1/models/{digest}")

    def ask(self, digest: str, verb: str, **headers: str) -> requests.Response:
        return requests.post(f"{self.url}/api/v1/models/{digest}/{verb}", headers=headers, timeout=10)

    def wait_for(self, digest: str, state: str, timeout: float = 30) -> dict[str, Any]:
        """Wait until the model is in `state`; return its status."""

        def reached() -> dict[str, Any]:
            status = self.status(digest)
            assert status["state"] == state, f"{status}\n{self.log[-9000:]}"
            return status

        return wait_until(reached, timeout, f"state {state}")

    def wait_received(self, digest: str, count: int, timeout: float = 30) -> dict[str, Any]:
        """Wait until `count` bytes are shown as received; return the status."""

        def reached() -> dict[str, Any]:
            status = self.status(digest)
            assert status["received_bytes"] >= count, f"{status}\n{self.log[-9000:]}"
            return status

        return wait_until(reached, timeout, f"{count} received bytes")

    def wait_counted(self, source: str) -> None:
        """Wait until a whole transfer stands in the metrics: its thread counts after the last byte is announced."""
        name = f'r3mes_download_duration_seconds_count{{source="{source}"}}'
        wait_until(lambda: self.metric(name) >= 1, what=f"a transfer from {source} to be counted")

    def metric(self, line: str) -> float:
        """Return the value of one sample, named as in the exposition."""
        text = requests.get(f"{self.url}/metrics", timeout=10).text
        found = [row.rpartition(" ")[2] for row in text.splitlines() if row.rpartition(" ")[0] == line]
        assert found, f"no sample {line}"
        return float(found[0])

    @property
    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def event(self, name: str) -> dict[str, Any] | None:
        """Return the latest log line of an event, of all starts."""
        return LogReader(self.log_file, whole=True).last(name)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def promote(layout: StoreLayout, digest: str, file_name: str, data: bytes, *, verified_at: float | None = None) -> None:
    """Do what the verifier does after a match: the verified file, its receipt, then incoming."""
    journal = Journal.read(layout.journal(digest))
    directory = layout.verified_dir(digest)
    directory.mkdir(exist_ok=True)
    path = layout.verified_file(digest, file_name)
    path.write_bytes(data)
    path.chmod(0o444)
    Receipt(
        sha256=digest,
        size=len(data),
        file_name=file_name,
        source=journal.source if journal else Source.HUGGINGFACE,
        revision="",
        verified_at=time.time() if verified_at is None else verified_at,
        verifier="test",
        genesis_sha256=digest,
        st=StatIdentity.of(path.stat()),
    ).write(layout.receipt(digest))
    layout.journal(digest).unlink(missing_ok=True)
    layout.data(digest).unlink(missing_ok=True)


def reject(layout: StoreLayout, digest: str, genesis_sha256: str) -> RejectedRecord:
    """Wait for a complete file; do what the verifier does after a mismatch: hash, the record, then incoming."""

    def complete() -> Journal | None:
        journal = Journal.read(layout.journal(digest))
        return journal if journal is not None and journal.complete else None

    journal = wait_until(complete, 30, "a complete file")
    assert journal is not None
    data = layout.data(digest).read_bytes()
    number = next(n for n in range(1, 21) if not layout.rejected_file(digest, n).exists())
    record = RejectedRecord(
        sha256=digest,
        found=sha256(data),
        size=len(data),
        reason="mismatch",
        generation=journal.generation,
        source=journal.source,
        revision=journal.revision,
        genesis_sha256=genesis_sha256,
        rejected_at=time.time(),
    )
    record.write(layout.rejected_file(digest, number))
    layout.journal(digest).unlink()
    layout.data(digest).unlink()
    return record
