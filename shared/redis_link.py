"""The link to Redis, which may be away at any time: disk is the truth, Redis is a hint.

A process waits for Redis at its start (saying so), and afterwards goes on without it: calls on a link that is down
raise `RedisAwayError`, which every caller turns into "not now".
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import redis
import structlog
from redis.backoff import ExponentialWithJitterBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from shared.errors import ConfigurationError, NotReadyError

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 10.0
FIRST_WAIT_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 5.0

log = structlog.get_logger(__name__)


class RedisAwayError(NotReadyError):
    """Redis does not answer now."""


@contextmanager
def translated() -> Iterator[None]:
    """Turn the library's errors into RedisAwayError at the border."""
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise RedisAwayError(f"Redis: {error}", next_step="check R3MES_REDIS_URL and that Redis runs") from error


class RedisLink:
    """One Redis by URL. `client` decodes answers to text; `raw` does not (RQ wants bytes)."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            self.place = f"{parts.hostname}:{parts.port or 6379}"  # without the password: this one may be logged
            self.client = self._connect(url, decode_responses=True)
            self.raw = self._connect(url, decode_responses=False)
        except ValueError as error:
            raise ConfigurationError(
                f"R3MES_REDIS_URL: {error}", next_step="wanted redis://[user:password@]host:port/0"
            ) from error

    @staticmethod
    def _connect(url: str, *, decode_responses: bool) -> redis.Redis:
        return redis.Redis.from_url(
            url,
            decode_responses=decode_responses,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            health_check_interval=15,
            retry=Retry(ExponentialWithJitterBackoff(cap=0.5, base=0.05), retries=1),
            # Two courtesies of the library at each connect, for which no service has a right (`redis_rights`).
            driver_info=None,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )

    def is_up(self) -> bool:
        """Tell whether Redis answers now."""
        return self._absence() is None

    def _absence(self) -> str | None:
        """Return why Redis does not answer now, None when it does."""
        try:
            with translated():
                self.client.ping()
        except RedisAwayError as error:
            return error.message
        return None

    def wait_until_up(self, stop: threading.Event) -> bool:
        """Wait with back-off until Redis answers; return False when `stop` was set first."""
        wait, said = FIRST_WAIT_SECONDS, False
        while not stop.is_set():
            absence = self._absence()
            if absence is None:
                if said:
                    log.info("Redis answers", redis=self.place)
                return True
            if not said:
                log.warning("waiting for Redis", redis=self.place, error=absence)
                said = True
            stop.wait(wait)
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)
        return False

    def close(self) -> None:
        """Close both connection pools."""
        for client in (self.client, self.raw):
            client.close()

    def pubsub(self) -> redis.client.PubSub:
        """Return a pub/sub object of the text client."""
        return redis.client.PubSub(self.client.connection_pool, ignore_subscribe_messages=True)
