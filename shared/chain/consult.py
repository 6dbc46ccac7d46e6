"""Asking all endpoints at once, until a quorum agrees or none can any more.

Each is asked in a thread of its own; geneses are read here one after the other, as they come, so that only one is in
pieces at a time.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

from shared.chain.answers import NoAnswerError
from shared.chain.asking import Asker
from shared.chain.endpoints import Endpoint
from shared.chain.registry import digests_of_chain_genesis
from shared.chain.verdict import Registry, agreed, is_open, quorum
from shared.errors import GenesisError

# Seconds for all endpoints together: enough for a genesis of 256 MiB over 50 Mbit/s.
CONSULT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Consultation:
    """The word of the chain, None without a quorum; who gave which registry, and who gave no answer and why."""

    registry: Registry | None
    asked: int
    answered: dict[str, frozenset[str]]
    problems: dict[str, str]

    def describe(self) -> str:
        """Return one line for a person."""
        if self.registry is not None:
            agree = sum(digests == self.registry.digests for digests in self.answered.values())
            return f"{agree} of {self.asked} endpoints agree on a registry of {len(self.registry.digests)} models"
        why = "; ".join(f"{name}: {problem}" for name, problem in sorted(self.problems.items()))
        return (
            f"no {quorum(self.asked)} of {self.asked} endpoints agree on one registry, so nothing is vetoed"
            f" ({len(self.answered)} answered{'; ' if why else ''}{why})"
        )


def consult(
    endpoints: tuple[Endpoint, ...], environ: Mapping[str, str], *, seconds: float = CONSULT_SECONDS
) -> Consultation:
    """Ask every endpoint; returns after `seconds` at the latest, but for the reading of what came. Raises nothing."""
    deadline = time.monotonic() + seconds
    askers = [Asker(endpoint, environ, deadline) for endpoint in endpoints]
    came: queue.SimpleQueue[tuple[str, IO[bytes] | NoAnswerError]] = queue.SimpleQueue()
    for asker in askers:
        threading.Thread(target=_ask, args=(asker, came), name="chain", daemon=True).start()
    answered: dict[str, frozenset[str]] = {}
    problems: dict[str, str] = {}
    missing = {endpoint.name for endpoint in endpoints}
    while missing and agreed(answered.values(), len(endpoints)) is None:
        if not is_open(answered.values(), len(missing), len(endpoints)):
            break
        try:
            name, answer = came.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            problems.update(dict.fromkeys(missing, "it takes too long"))
            break
        missing.discard(name)
        try:
            answered[name] = _read(answer)
        except (NoAnswerError, GenesisError) as error:
            problems[name] = error.message
    for asker in askers:
        asker.cut()
    return Consultation(agreed(answered.values(), len(endpoints)), len(endpoints), answered, problems)


def _ask(asker: Asker, came: queue.SimpleQueue[tuple[str, IO[bytes] | NoAnswerError]]) -> None:
    try:
        came.put((asker.endpoint.name, asker.genesis()))
    except NoAnswerError as error:
        came.put((asker.endpoint.name, error))


def _read(answer: IO[bytes] | NoAnswerError) -> frozenset[str]:
    if isinstance(answer, NoAnswerError):
        raise answer
    with answer:
        return digests_of_chain_genesis(answer)
