"""Asking all miners at once, each of them within a short time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import Any

from services.downloader.miners import answers
from services.downloader.miners.answers import MinerView
from services.downloader.miners.asking import NoAnswerError, Visit
from services.downloader.miners.places import Address, Place, resolve

MAX_MINERS = 256
# For all questions to one miner together.
ANSWER_SECONDS = 2.0
_AT_ONCE = 16


class MinerPoll:
    """Asks every address of the places; `key` gives the API key that is sent, or None."""

    def __init__(
        self, places: tuple[Place, ...], key: Callable[[], str | None], seconds: float = ANSWER_SECONDS
    ) -> None:
        self._places = places
        self._key = key
        self._seconds = seconds
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="miner-poll")

    def look(self) -> list[dict[str, Any]]:
        """Return what each miner says now, in a fixed order; a name that has no address has no miner."""
        found = chain.from_iterable(resolve(place) for place in self._places)
        addresses = list(islice(dict.fromkeys(found), MAX_MINERS))
        return [view.to_json() for view in self._pool.map(self._ask, addresses)]

    def _ask(self, address: Address) -> MinerView:
        with Visit(address, self._seconds) as visit:
            try:
                answer = visit.get("/readyz")
            except NoAnswerError as error:
                return MinerView(address.url, ready=False, reason=str(error))
            ready, reason = answers.readiness(answer.status, answer.body)
            served = _models(visit, self._key())
            running, waiting = _load(visit)
        if isinstance(served, str):
            return MinerView(address.url, ready, served if ready else reason, (), running, waiting)
        return MinerView(address.url, ready, reason, served, running, waiting)


def _models(visit: Visit, key: str | None) -> tuple[answers.ServedModel, ...] | str:
    headers = {"Authorization": f"Bearer {key}".encode()} if key else {}
    try:
        answer = visit.get("/v1/models", headers)
    except NoAnswerError as error:
        return str(error)
    return answers.models(answer.status, answer.body)


def _load(visit: Visit) -> tuple[int | None, int | None]:
    try:
        exposition = visit.get("/metrics").body
    except NoAnswerError:
        return None, None
    return (
        answers.gauge(exposition, "r3mes_miner_requests_running"),
        answers.gauge(exposition, "r3mes_miner_requests_waiting"),
    )
