"""The real verifier process over a real store and a real Redis."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.error import URLError

from prometheus_client.parser import text_string_to_metric_families

from tests.support.log_reader import LogReader
from tests.support.verifier_store import Store
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
START_SECONDS = 30.0


class VerifierProcess:
    """`python -m services.verifier` with its health and metrics."""

    def __init__(self, store: Store, redis_url: str, directory: Path, **environment: str) -> None:
        self.log_file = directory / "verifier.log"
        self._environment = {
            **{name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}},
            "PYTHONPATH": str(REPOSITORY),
            "R3MES_MODELS_DIR": str(store.layout.root),
            "R3MES_GENESIS": str(directory / "no-operator-file.json"),
            "R3MES_REDIS_URL": redis_url,
            "R3MES_LISTEN": "127.0.0.1:0",
            "R3MES_STORE_KIND": "container",  # the store is there already, as after init
            **environment,
        }
        self._directory = directory
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self._log = LogReader(self.log_file)
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "services.verifier"], cwd=self._directory, env=self._environment, stderr=log
            )

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body; 0 while it does not listen."""
        started = self._log.last("verifier started")
        if started is None:
            return 0, ""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{started['port']}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (URLError, OSError):
            return 0, ""

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.get("/readyz")[0] == 200, START_SECONDS, f"ready; said {self.log()[-500:]}")

    def metric(self, name: str, labels: Mapping[str, str] | None = None) -> float:
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                if sample.name == name and sample.labels == dict(labels or {}):
                    return sample.value
        raise AssertionError(f"no {name}{labels} in /metrics")

    def refused(self) -> float:
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.get("/metrics")[1])
            for sample in family.samples
            if sample.name == "r3mes_jobs_refused_total"
        )

    def log(self) -> str:
        return self.log_file.read_text()

    def terminate(self, timeout: float = 5.0) -> int:
        self.process.terminate()
        return self.process.wait(timeout)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Start again after its end, with the same settings."""
        assert self.process.poll() is not None
        self.process = self._start()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


StartVerifier = Callable[..., VerifierProcess]
