"""Files with the pinned digest that are no sound GGUF: whatever llama.cpp does with them, this process goes on.

Mutations of the real file: bytes of its header changed, lengths and counts set to extremes, pieces left out or twice,
cut off anywhere. Each is read by the structural check, which must say yes or IntegrityError; what passes is loaded by a
real engine, which may refuse it or die, and if it loads it, it has to answer.
"""

from __future__ import annotations

import asyncio
import os
import random
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import pytest
from prometheus_client import CollectorRegistry

from services.miner.engine.client import EngineClient
from services.miner.engine.generation import EngineGoneError
from services.miner.engine.messages import Submit
from services.miner.llama_log import take_log
from services.miner.loading import load
from services.miner.metrics import MinerMetrics
from services.miner.model.check import CheckedModel
from services.miner.model.gguf import read_structure
from services.miner.model.probe import probe_machine
from services.miner.recovery import Patience, Recovery
from services.miner.settings import MinerSettings
from shared.errors import EngineError, IntegrityError
from shared.genesis import ModelPin
from shared.log import configure_logging
from shared.store.records import StatIdentity
from tests.integration.miner.stand import FILE_NAME, MODEL_NAME, SHA256, model_file

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(1800)]

CHECKED = int(os.environ.get("MUTATIONS", "240"))
LOADED = CHECKED // 8
EXTREMES = (0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


def header_end(content: bytes) -> int:
    """Where the last tensor's entry ends: its data begins at the next multiple of 32."""
    return content.index(b"output_norm.weight") + 256


class Mutations:
    """Copies of a file's beginning, each wrong in its own way, and the same for the same seed."""

    def __init__(self, content: bytes, seed: int) -> None:
        self._content = content
        self._end = header_end(content)
        self._chance = random.Random(seed)  # noqa: S311  not for secrets

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        kinds = (self._bits, self._number, self._letters, self._twice, self._without, self._cut)
        while True:
            kind = self._chance.choice(kinds)
            yield kind.__name__, kind()

    def _place(self, width: int = 1) -> int:
        """Most of a header is the vocabulary; half of the mutations are in what comes before and after it."""
        near = self._chance.random() < 0.5
        beginning = self._chance.randrange(4, 4096)
        end = self._chance.randrange(self._end - 24_000, self._end)
        return self._chance.choice((beginning, end)) if near else self._chance.randrange(4, self._end - width)

    def _bits(self) -> bytes:
        mutated = bytearray(self._content)
        for _ in range(self._chance.choice((1, 1, 2, 8))):
            mutated[self._place()] ^= 1 << self._chance.randrange(8)
        return bytes(mutated)

    def _number(self) -> bytes:
        extreme = self._chance.choice(EXTREMES)
        width = self._chance.choice([size for size in (1, 2, 4, 8) if extreme < 1 << (8 * size)])
        at = self._place(width)
        return self._content[:at] + struct.pack("<Q", extreme)[:width] + self._content[at + width :]

    def _letters(self) -> bytes:
        """Another letter in one of the names, so that something is missing."""
        at = self._place()
        while not chr(self._content[at]).isalpha():
            at = self._place()
        return self._content[:at] + b"q" + self._content[at + 1 :]

    def _twice(self) -> bytes:
        at, size = self._place(), self._chance.randrange(1, 64)
        return self._content[: at + size] + self._content[at:]

    def _without(self) -> bytes:
        at, size = self._place(), self._chance.randrange(1, 64)
        return self._content[:at] + self._content[at + size :]

    def _cut(self) -> bytes:
        return self._content[: self._chance.randrange(0, len(self._content))]


async def outcome_of(descriptor: int) -> str:
    """Load a file as the miner does, and have it say something."""
    identity = StatIdentity.of(os.fstat(descriptor))
    pin = ModelPin(MODEL_NAME, FILE_NAME, f"https://huggingface.co/o/r/resolve/main/{FILE_NAME}", SHA256, 1.0, "", None)
    checked = CheckedModel(pin, descriptor, identity, read_structure(descriptor), rehashed=False)
    settings = MinerSettings.model_validate({"R3MES_N_CTX": 512, "R3MES_ENGINE": "llama", "R3MES_THREADS": 1})
    metrics = MinerMetrics(CollectorRegistry())
    try:
        served = await load(checked, settings, probe_machine(), metrics, Recovery(Patience()))
    except EngineGoneError:
        return "died while it loaded"
    except EngineError:
        return "refused"
    try:
        return await said(served.client)
    finally:
        await served.client.stop()
        served.vocabulary.close()


async def said(client: EngineClient) -> str:
    generation = client.open(Submit("one", (1, 2, 3), 3))
    try:
        async with asyncio.timeout(60):
            outputs = [output async for output in generation]
    except EngineGoneError:
        return "died while it answered"
    finally:
        generation.close()
    return "answered" if outputs[-1].finish != "error" else "answered with an error"


@contextmanager
def in_memory(content: bytes) -> Iterator[int]:
    """Yield the descriptor of a file that no disk holds."""
    descriptor = os.memfd_create("mutated")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield descriptor
    finally:
        os.close(descriptor)


def test_no_mutation_of_a_real_file_ends_the_process() -> None:
    configure_logging("miner", "error")
    take_log()  # names in a mutated file are no text, which the package's own logger does not bear
    found: Counter[str] = Counter()
    loaded = 0
    for kind, content in islice(Mutations(model_file().read_bytes(), seed=17), CHECKED):
        with in_memory(content) as descriptor:
            try:
                read_structure(descriptor)
            except IntegrityError:
                outcome = "refused by the check"
            else:
                if loaded == LOADED:
                    continue
                loaded += 1
                outcome = asyncio.run(outcome_of(descriptor))
        found[f"{kind.strip('_')}: {outcome}"] += 1
    for outcome, count in sorted(found.items()):
        print(f"{count:5} {outcome}")  # noqa: T201  the figures
    assert loaded == LOADED, "too few pass the check to say anything of what comes after it"
    assert any("refused by the check" in outcome for outcome in found)
