"""Whether a service, or Redis, answers now: one question without a second try."""

from __future__ import annotations

import http.client

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


def is_ready(port: int) -> bool:
    """Tell whether /readyz answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def answers_ping(url: str) -> bool:
    """Tell whether Redis answers."""
    client = redis.Redis.from_url(url, socket_timeout=1.0, retry=Retry(NoBackoff(), retries=0))
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()
