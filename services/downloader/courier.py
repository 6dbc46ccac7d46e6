"""The one thread that talks to Redis: asks for verdicts, publishes statuses, reads the verifier's hints.

Nothing waits for it: a Redis that is away or slow delays verdicts and hints, never a download. What it was asked to do
is kept until it is done; what it knows is read at any time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from services.downloader.board import Board
from services.downloader.limits import VERDICT_SECONDS
from shared.hints import RedisHints
from shared.queue import VerifyQueue
from shared.redis_link import RedisAwayError, RedisLink
from shared.states import ModelState

log = structlog.get_logger(__name__)

_TICK_SECONDS = 0.5
_REFUSED_SECONDS = 1.0
_COUNT_SECONDS = 2.0
# The verifier follows a download while it runs, and may be at it still while one is paused.
_WATCHED = frozenset({ModelState.DOWNLOADING, ModelState.PAUSED, ModelState.VERIFYING})
# What somebody deleted from Redis is back after this time.
_REPUBLISH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Asked:
    """When a verdict on a generation was last asked for, by this process (monotonic clock)."""

    generation: str
    at: float


@dataclass(frozen=True, slots=True)
class Heard:
    """How many hashed bytes the verifier last told of, and when this changed (monotonic clock)."""

    hashed_bytes: int
    at: float


class Courier:
    """Carries questions and news; `start` it, `stop` ends with the given event."""

    def __init__(self, link: RedisLink, node: str, board: Board, stop: threading.Event) -> None:
        self._link = link
        self._queue = VerifyQueue(link, node)
        self._hints = RedisHints(link, node)
        self._board = board
        self._stop = stop
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._asked: dict[str, Asked] = {}
        self._to_ask: dict[str, None] = {}
        self._heard: dict[str, Heard] = {}
        self._copies: dict[str, int] = {}
        self._counts: dict[str, int] | None = None
        self._counted_at = 0.0
        self._published = 0
        self._republished_at = 0.0
        self._is_up = False
        board.add_bell(self._wake.set)

    @property
    def is_up(self) -> bool:
        """Whether Redis answered last time."""
        return self._is_up

    @property
    def queue_counts(self) -> dict[str, int] | None:
        """How many jobs are queued and started, None while Redis is away."""
        return self._counts if self._is_up else None

    def ask(self, digest: str, generation: str) -> None:
        """Ask the verifier to judge `digest`, as soon as Redis is there."""
        with self._lock:
            self._asked[digest] = Asked(generation, time.monotonic())
            self._to_ask[digest] = None
        self._wake.set()

    def asked_ago(self, digest: str, generation: str) -> float | None:
        """Return how many seconds ago this generation's verdict was last asked for."""
        with self._lock:
            asked = self._asked.get(digest)
        return time.monotonic() - asked.at if asked is not None and asked.generation == generation else None

    def heard_ago(self, digest: str) -> float | None:
        """Return how many seconds ago the verifier last told of progress."""
        with self._lock:
            heard = self._heard.get(digest)
        return time.monotonic() - heard.at if heard is not None else None

    def hashed_bytes(self, digest: str) -> int:
        """Return how many hashed bytes the verifier last told of."""
        with self._lock:
            heard = self._heard.get(digest)
        return heard.hashed_bytes if heard is not None else 0

    def copies(self) -> dict[str, int]:
        """Return the bytes of the verifier's private copies, by digest."""
        with self._lock:
            return dict(self._copies)

    def start(self, on_verdict: Callable[[], None], on_crash: Callable[[BaseException], None]) -> None:
        """Begin to carry; call `on_verdict` when the verifier has announced one, `on_crash` when a thread fails."""

        def guarded(work: Callable[[], None]) -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - the outermost loop of these threads: the process ends with it
                on_crash(error)

        for name, work in (("courier", self._run), ("courier-ear", lambda: self._listen(on_verdict))):
            threading.Thread(target=guarded, args=(work,), name=name, daemon=True).start()

    def stop(self) -> None:
        """Wake the thread, so that it sees the stop event."""
        self._wake.set()

    def _run(self) -> None:
        while self._link.wait_until_up(self._stop) and not self._stop.is_set():
            self._is_up = True
            try:
                while not self._stop.is_set():
                    self._wake.clear()
                    self._carry()
                    self._wake.wait(_TICK_SECONDS)
            except RedisAwayError as error:
                self._is_up = False
                log.warning("Redis is away: verdicts have to wait, downloads go on", error=error.message)
                self._stop.wait(_REFUSED_SECONDS)  # one that answers and refuses would be asked without a pause

    def _carry(self) -> None:
        """Do everything once; raises RedisAwayError."""
        with self._lock:
            to_ask = tuple(self._to_ask)
        for digest in to_ask:
            if self._enqueue(digest):
                with self._lock:
                    self._to_ask.pop(digest, None)
        self._publish()
        self._read_hints()
        if time.monotonic() - self._counted_at >= _COUNT_SECONDS:
            self._counts = self._queue.pending()
            self._counted_at = time.monotonic()

    def _enqueue(self, digest: str) -> bool:
        """Enqueue a verification; tell whether the question is dealt with. Raises RedisAwayError."""
        status = self._board.status(digest)
        if status is not None and status.state is ModelState.VERIFIED:
            return True
        if self._queue.enqueue(digest):
            log.info("verification enqueued", sha256=digest)
            return True
        # A job for earlier bytes may be ending just now: ask again at each tick, as long as the question is fresh.
        with self._lock:
            return time.monotonic() - self._asked[digest].at >= VERDICT_SECONDS

    def _publish(self) -> None:
        now = time.monotonic()
        if now - self._republished_at >= _REPUBLISH_SECONDS:
            self._published, self._republished_at = 0, now
        entries = self._board.entries()
        for entry in entries:
            if entry.change > self._published and not self._hints.publish_status(entry.status):
                raise RedisAwayError("Redis took no status")
        self._published = max((entry.change for entry in entries), default=self._published)

    def _read_hints(self) -> None:
        for status in self._board.statuses():
            if status.state not in _WATCHED:
                with self._lock:
                    self._heard.pop(status.sha256, None)
                    self._copies.pop(status.sha256, None)
                continue
            progress = self._hints.read_verification(status.sha256)
            copy = self._hints.read_copy_size(status.sha256)
            with self._lock:
                self._copies[status.sha256] = copy
                heard = self._heard.get(status.sha256)
                if progress is not None and (heard is None or heard.hashed_bytes != progress.hashed_bytes):
                    self._heard[status.sha256] = Heard(progress.hashed_bytes, time.monotonic())

    def _listen(self, on_verdict: Callable[[], None]) -> None:
        for kind, _ in self._hints.listen(self._stop):
            if kind == "verdict":
                on_verdict()
            elif kind == "progress":
                self._wake.set()
