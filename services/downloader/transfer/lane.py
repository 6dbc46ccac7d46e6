"""One connection of a transfer: it takes a task from its crew, fetches the range, hands over the bytes, asks again."""

from __future__ import annotations

import threading
from typing import Protocol

from services.downloader.interrupt import Interrupt, InterruptedTransferError
from services.downloader.sources.base import (
    Body,
    Connection,
    PermanentSourceError,
    Supply,
    TransientSourceError,
    UpstreamMismatchError,
)
from services.downloader.transfer.planner import Claim
from services.downloader.transfer.task import Failure, Task


class Foreman(Protocol):
    """Who gives out the work; methods may be called from every lane's thread."""

    def next_task(self, lane: Lane) -> Task | None:
        """Wait for something to do; None when the work is over."""

    def opened(self, lane: Lane, task: Task, body: Body) -> Claim:
        """An answer has begun: return what of it is to be kept; raises TransientSourceError."""

    def keep(self, lane: Lane, claim: Claim, chunk: bytes | memoryview) -> bool:
        """Keep a chunk; tell whether the rest of the body is wanted."""

    def failed(self, lane: Lane, task: Task, claim: Claim, error: Failure) -> None:
        """The range did not come."""

    def released(self, lane: Lane, task: Task, claim: Claim) -> None:
        """The lane has let go of the claim."""

    def crashed(self, error: BaseException) -> None:
        """The lane is at its end, and so is the work."""


class Lane(threading.Thread):
    """`ready_at` is the time (monotonic seconds) before which it is given nothing; `connection` one that exists."""

    def __init__(
        self, foreman: Foreman, supply: Supply, number: int, interrupt: Interrupt, connection: Connection | None = None
    ) -> None:
        super().__init__(name=f"lane-{number}", daemon=True)
        self.number = number
        self.interrupt = interrupt
        self.ready_at = 0.0
        self._foreman = foreman
        self._supply = supply
        self._connection = connection

    def run(self) -> None:
        """Work until there is nothing left to do."""
        try:
            while (task := self._foreman.next_task(self)) is not None:
                self._fetch(task)
        except InterruptedTransferError:
            pass  # told to: whoever told it knows
        except Exception as error:  # noqa: BLE001 - the outermost loop of this thread: the turn ends with it
            self._foreman.crashed(error)
        finally:
            if self._connection is not None:
                self._connection.close()

    def _fetch(self, task: Task) -> None:
        if self._connection is None:
            self._connection = self._supply.connect(self.interrupt)
        place, claim = self._connection.places[task.place], task.claim
        try:
            with place.fetch(claim.at, claim.end, task.size, task.limit) as body:
                claim = self._foreman.opened(self, task, body)
                for chunk in body.chunks:
                    if not self._foreman.keep(self, claim, chunk):
                        break
        except (TransientSourceError, PermanentSourceError, UpstreamMismatchError) as error:
            self._foreman.failed(self, task, claim, error)
        finally:
            self._foreman.released(self, task, claim)
