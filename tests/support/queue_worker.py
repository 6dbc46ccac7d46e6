"""A real worker of RQ in a thread, whose jobs do what a test says."""

from __future__ import annotations

import sys
import threading
import types

import pytest

from shared.queue import JobRefusal, run_worker
from shared.redis_link import RedisLink


class Worker:
    """A worker in a thread; `calls` are the digests it was given. `held`: no job ends until `may_finish` is set."""

    def __init__(self, link: RedisLink, monkeypatch: pytest.MonkeyPatch, *, held: bool = False) -> None:
        self.calls: list[str] = []
        self.refused: list[JobRefusal] = []
        self.may_finish = threading.Event()
        if not held:
            self.may_finish.set()
        self.fails = False
        self.stop = threading.Event()
        self.serving = threading.Event()
        module = types.ModuleType("services.verifier.job")
        module.verify = self._verify  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "services.verifier.job", module)
        self.thread = threading.Thread(
            target=run_worker,
            args=(link, "local", self.stop),
            kwargs={"on_refused": self.refused.append, "serving": self.serving},
        )
        self.thread.start()

    def _verify(self, digest: str) -> str:
        self.calls.append(digest)
        self.may_finish.wait(30)
        if self.fails:
            raise OSError("the disk is on fire")
        return "promoted"

    def end(self) -> None:
        self.may_finish.set()
        self.stop.set()
        self.thread.join(15)
        assert not self.thread.is_alive()
