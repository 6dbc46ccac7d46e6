"""From one accepted genesis to the next with everything real: the command, Redis, two origins, all three services.

No process is started again: the downloader fetches what the new genesis pins, the verifier verifies it, and the miner
goes over to it while somebody still reads an answer of the old model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from benchmarks.origin import Behaviour, Origin
from tests.integration.miner.stand import FILE_NAME, MODEL_NAME, SHA256, Miner, genesis_entry, model_file
from tests.integration.miner.stand import Store as MinerStore
from tests.support.downloader_process import Downloader
from tests.support.geneses import list_form
from tests.support.r3mes_shell import Shell
from tests.support.verifier_process import VerifierProcess
from tests.support.verifier_store import Store
from tests.support.waiting import wait_until

NEXT, NEXT_FILE = "Next", "next.gguf"
SLOWLY = Behaviour(together=8 * 1024 * 1024)  # bytes per second: twelve seconds for the file, in which A is asked
LONG = 800  # tokens: eight seconds or more, several times what a swap takes to begin

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def next_model(path: Path) -> Path:
    """Write the real model with one letter of its name in the metadata changed: other bytes, the same weights."""
    content = bytearray(model_file().read_bytes())
    content[content.index(b"Smollm2 135M")] ^= 0x20
    path.write_bytes(content)
    return path


class Stack:
    """Downloader, verifier and miner on one store in which A is accepted, each started once; A and B upstream."""

    def __init__(self, folder: Path, redis_url: str, running: ExitStack) -> None:
        self.a = running.enter_context(Origin(model_file(), sha256=SHA256))
        self.b = running.enter_context(Origin(next_model(folder / "upstream.gguf")))
        home = folder / "host"
        environ = {
            "R3MES_REDIS_URL": redis_url,
            "R3MES_ALLOW_HTTP_SOURCES": f"{self.a.hosts},{self.b.hosts}",
            "R3MES_DRAIN_SECONDS": "240",  # a busy machine may need as long for one answer
        }
        self.downloader = Downloader(home, self._pin(self.a, MODEL_NAME, FILE_NAME), environ=environ)
        self.genesis, self.layout = self.downloader.genesis, self.downloader.layout
        running.callback(self.downloader.kill)
        self.downloader.start()
        store = Store(self.layout)
        self.verifier = VerifierProcess(store, redis_url, home, R3MES_GENESIS=str(self.genesis))
        running.callback(self.verifier.kill)
        self.miner = running.enter_context(
            Miner(MinerStore(home), {**environ, "R3MES_GENESIS": str(self.genesis)}),
        )
        self._shell = Shell(folder)
        self._environ = {**environ, "R3MES_MODELS_DIR": str(self.layout.root), "R3MES_GENESIS": str(self.genesis)}
        self._pids = self._running()

    def accept_b(self, *options: str) -> None:
        """Do what an operator does, a genesis that pins B alone and the command; wait until the downloader noticed."""
        self.genesis.write_bytes(list_form(self._pin(self.b, NEXT, NEXT_FILE)))
        done = self._shell.run("genesis", "accept", "--yes", *options, **self._environ)
        assert done.returncode == 0, done.stderr
        status = f"{self.downloader.url}/api/v1/models/{self.b.sha256}"
        wait_until(lambda: requests.get(status, timeout=10).ok, 30, "the downloader to know B")

    def wait_verified(self, digest: str) -> None:
        self.downloader.wait_for(digest, "verified", 120)

    def served(self) -> list[str]:
        return [model["id"] for model in self.miner.get("/v1/models").json()["data"]]

    def answers(self, name: str) -> None:
        answer = self.miner.chat(model=name)
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == name
        assert "Paris" in answer.json()["choices"][0]["message"]["content"]

    @contextmanager
    def long_answer(self) -> Iterator[Future[list[bytes]]]:
        """Begin a long answer of A and give what is to become of it; it has its first token already."""
        response = self.miner.chat("Tell me a long story.", stream=True, max_tokens=LONG, ignore_eos=True)
        assert response.status_code == 200
        lines = (line for line in response.iter_lines() if line)
        first = next(lines)
        with ThreadPoolExecutor(1) as pool, response:
            yield pool.submit(lambda: [first, *lines])

    def swaps_to_b(self, answer: Future[list[bytes]]) -> None:
        """Hold the miner to it: it loads B beside A, goes over to it, and A's answer that runs is still whole."""
        wait_until(lambda: self.served() == [NEXT], 120, "B to be served")
        assert not answer.done(), f"cut off, or too short for this machine: {answer.result()[-2:]}"
        assert self.miner.readiness()["ready"]
        self.answers(NEXT)
        assert len(self.miner.engines()) == 2
        ended_cleanly(answer.result(240))
        wait_until(lambda: len(self.miner.engines()) == 1, 30, "A's engine to end")
        assert self.miner.chat().status_code == 404
        assert self._running() == self._pids
        assert self.miner.metric("r3mes_miner_engine_restarts_total") == 0

    def _running(self) -> list[int]:
        """Return each service's process; raises AssertionError for one that has ended."""
        processes = (self.downloader.process, self.verifier.process, self.miner.process)
        assert all(process is not None and process.poll() is None for process in processes)
        return [process.pid for process in processes if process is not None]

    @staticmethod
    def _pin(origin: Origin, name: str, file_name: str) -> dict[str, object]:
        return genesis_entry(
            model_name=name,
            file_name=file_name,
            verification_sha256=origin.sha256,
            size_bytes=origin.size,
            download_source=f"{origin.url}/org/smol/resolve/main/{file_name}",
        )


def ended_cleanly(lines: list[bytes]) -> None:
    """Assert that an answer of A is whole: every token, the reason of its end, and the end mark."""
    assert lines[-1] == b"data: [DONE]", lines[-3:]
    chunks: list[dict[str, Any]] = [json.loads(line.removeprefix(b"data: ")) for line in lines[:-1]]
    assert [chunk for chunk in chunks if "error" in chunk] == []
    assert {chunk["model"] for chunk in chunks} == {MODEL_NAME}
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


@pytest.fixture
def stack(tmp_path: Path, clean_redis: str) -> Iterator[Stack]:
    """A stack that serves A, fetched and verified by itself."""
    with ExitStack() as running:
        stack = Stack(tmp_path, clean_redis, running)
        stack.wait_verified(SHA256)
        stack.miner.wait_ready()
        stack.answers(MODEL_NAME)
        yield stack


def test_an_accepted_genesis_is_fetched_verified_and_swapped_to_while_the_old_model_answers(stack: Stack) -> None:
    assert (stack.a.counters["sent"], stack.b.counters["sent"]) == (stack.a.size, 0)
    stack.b.behave(SLOWLY)

    stack.accept_b()

    stack.downloader.wait_received(stack.b.sha256, 1)
    assert stack.served() == [MODEL_NAME]
    stack.answers(MODEL_NAME)
    with stack.long_answer() as answer:
        assert stack.downloader.status(stack.b.sha256)["state"] != "verified"
        stack.b.behave(Behaviour())
        stack.swaps_to_b(answer)
    stack.wait_verified(stack.b.sha256)
    assert stack.a.counters["sent"] == stack.a.size


def test_a_staged_genesis_is_fetched_first_and_accepted_without_another_download(stack: Stack) -> None:
    stack.accept_b("--stage")

    stack.wait_verified(stack.b.sha256)
    assert stack.b.counters["sent"] == stack.b.size
    assert stack.served() == [MODEL_NAME]
    stack.answers(MODEL_NAME)
    asked = stack.b.counters["requests"]
    with stack.long_answer() as answer:
        stack.accept_b()
        stack.swaps_to_b(answer)
    assert (stack.a.counters["sent"], stack.b.counters["sent"]) == (stack.a.size, stack.b.size)
    assert stack.b.counters["requests"] == asked
