"""The whole chain as processes: an origin at a chosen pace, the real downloader, the real verifier, a real Redis.

`Chain(...)` makes the file and the store; `start()` starts both services; `wait_verified()` waits for the promise and
holds the store to it. What a test does to Redis, to the clock or to a process is between the two.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.origin import Behaviour, Origin
from services.downloader.transfer.incoming import read_journal
from tests.support.downloader_process import Downloader
from tests.support.geneses import entry
from tests.support.verifier_process import VerifierProcess
from tests.support.verifier_store import Store
from tests.support.waiting import wait_until

MIB = 1024 * 1024
SEND_BUFFER = 128 * 1024  # what waits in the origin's sockets counts as sent


class Chain:
    """One model on its way. `pace` is in bytes per second over all connections, None for as fast as it goes."""

    def __init__(
        self,
        home: Path,
        *,
        downloader_redis: str,
        verifier_redis: str,
        size: int = MIB,
        pace: float | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        home.mkdir(exist_ok=True)
        file = home / "upstream.bin"
        file.write_bytes(os.urandom(size))
        self.size = size
        self._running = ExitStack()
        self.origin = Origin(file, send_buffer=SEND_BUFFER)
        self.digest = self.origin.sha256
        self.origin.behave(Behaviour(together=pace))
        pinned = entry(
            verification_sha256=self.digest,
            size_bytes=size,
            required_disk_space_gb=size / 10**9,
            download_source=f"{self.origin.url}/org/tiny/resolve/main/tiny.gguf",
        )
        self._home = home
        self._verifier_redis = verifier_redis
        # One connection, so that the prefix, which the verifier follows, grows as the bytes come.
        self._environ = {"R3MES_DOWNLOAD_CONNECTIONS": "1", **(environ or {})}
        common = {"R3MES_ALLOW_HTTP_SOURCES": self.origin.hosts, **self._environ}
        self.downloader = Downloader(home, pinned, environ={"R3MES_REDIS_URL": downloader_redis, **common})
        self.layout = self.downloader.layout
        self.store = Store(self.layout)
        self.verifier: VerifierProcess

    def __enter__(self) -> Self:
        self.origin.start()
        self._running.callback(self.origin.stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def start(self) -> Self:
        """Start both services; the first one makes the store."""
        self._running.callback(self.downloader.kill)
        self.downloader.start()
        self.start_verifier()
        return self

    def start_verifier(self) -> None:
        self.verifier = VerifierProcess(self.store, self._verifier_redis, self._home, **self._environ)
        self._running.callback(self._end_verifier)

    def status(self) -> dict[str, Any]:
        return self.downloader.status(self.digest)

    def received(self) -> int:
        """How many bytes of this generation have come, from the journal."""
        journal = read_journal(self.layout, self.digest)
        return journal.prefix if journal is not None else 0

    def is_promoted(self) -> bool:
        return self.store.verified_names(self.digest) == ["receipt.json", "tiny.gguf"]

    def is_rejected(self) -> bool:
        return any(self.layout.rejected.glob(f"{self.digest}-*.json"))

    def wait_verified(self, seconds: float) -> None:
        """Wait until the downloader shows the model as verified, and hold the store to it."""

        def verified() -> bool:
            assert self.verifier.process.poll() is None, f"the verifier ended\n{self.verifier.log()[-3000:]}"
            status = self.status()
            words = f"{status}\n{self.downloader.log[-1500:]}\n{self.verifier.log()[-1500:]}"
            assert status["state"] == "verified", words
            return True

        wait_until(verified, seconds, "the model to be verified")
        assert self.is_promoted()
        assert self.store.wrong_verified_files() == []
        assert not self.is_rejected()

    def _end_verifier(self) -> None:
        if self.verifier.process.poll() is None:
            self.verifier.kill()
