"""Requests whose constraint is being parsed; they join the queue afterwards, so that nobody waits for a parser."""

from __future__ import annotations

import select

from services.miner.engine.messages import Submit
from services.miner.grammar.matcher import ConstraintError, Matcher

LOOK_SECONDS = 0.02  # how long an engine with nothing else to do waits for them


class Openings:
    """Order: `add`, then `settled` once a step until it gives the request back."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[Submit, Matcher]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, request: Submit, matcher: Matcher) -> None:
        """Take a request whose grammar's process has just been asked for."""
        self._open[request.request_id] = request, matcher

    def cancel(self, request_id: str) -> None:
        """Nobody waits for this one any more; one that is not here is no error."""
        if request_id in self._open:
            self._open.pop(request_id)[1].close()

    def settled(self, *, wait: bool) -> list[tuple[Submit, Matcher | str]]:
        """Return the requests that are decided: with their matcher, or with the reason why there is none."""
        if wait and self._open:
            poll = select.poll()
            for _, matcher in self._open.values():
                poll.register(matcher, select.POLLIN)
            poll.poll(LOOK_SECONDS * 1000)
        decided: list[tuple[Submit, Matcher | str]] = []
        for request, matcher in list(self._open.values()):
            try:
                if not matcher.opened():
                    continue
                decided.append((request, matcher))
            except ConstraintError as error:
                matcher.close()
                decided.append((request, str(error)))
            del self._open[request.request_id]
        return decided
