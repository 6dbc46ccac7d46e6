"""A node for a browser: a real downloader whose download stops in its middle, a scripted miner, a gateway in front."""

from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tests.support.downloader_process import MIB, Downloader, model, promote, sha256
from tests.support.little_gateway import LittleGateway
from tests.support.origin_server import Hold, ScriptedOrigin, linked, ranged
from tests.support.scripted_miner import ScriptedMiner

DATA = random.Random(20).randbytes(3 * MIB)  # noqa: S311 - any bytes
DIGEST = sha256(DATA)
PATH = "/org/tiny/resolve/main/tiny.gguf"
KEY = "the-key-of-the-tests"


class PageStand:
    """`hold` stops the download after its first MiB; `models` are the genesis's."""

    def __init__(self, home: Path, *models: dict[str, object], prefix: str = "", **environ: str) -> None:
        self.origin = ScriptedOrigin()
        self.hold = Hold(after=MIB, for_all=True)
        self.origin.scripts[PATH] = ranged(DATA, hold=self.hold, headers=linked(DATA))
        self.miner = ScriptedMiner()
        self.miner.script.ready, self.miner.script.models = False, []
        self.miner.script.reason = "waits for Tiny to be verified"
        environ = {"HF_ENDPOINT": self.origin.url, "R3MES_MINER_URL": self.miner.url, **environ}
        self.service = Downloader(home, *(models or (model(DATA),)), environ=environ)
        self._prefix = prefix
        self._ends = ExitStack()

    @property
    def url(self) -> str:
        """The gateway's."""
        return self.gateway.url

    def promote(self) -> None:
        """Do the verifier's part."""
        promote(self.service.layout, DIGEST, "tiny.gguf", DATA)

    def __enter__(self) -> Self:
        self._ends.enter_context(self.origin)
        self._ends.enter_context(self.miner)
        self._ends.enter_context(self.service)
        self.gateway = LittleGateway(self.service.url, self.miner.url, prefix=self._prefix)
        self._ends.enter_context(self.gateway)
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()
