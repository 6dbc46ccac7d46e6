"""Redis, asked as a service asks it, and for what it tells of itself. Nothing is written."""

from __future__ import annotations

import socket
from dataclasses import replace
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from launcher.doctor.judges.redis import Answer, RedisFacts, judge_redis
from launcher.doctor.subject import Subject
from launcher.doctor.verdict import Verdict, failed, skipped
from shared.errors import ExitCode

DEFAULT_URL = "redis://127.0.0.1:6379/0"
SECONDS = 2.0
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
REDIS_SAYS = (b"+PONG", b"-NOAUTH", b"-DENIED", b"-ERR", b"-NOPERM", b"-LOADING")
_WORDS = ("redis_version", "maxmemory_policy", "aof_enabled")


def check_redis(subject: Subject) -> list[Verdict]:
    """Ask the Redis that the settings name, else the default one."""
    url = subject.secret("R3MES_REDIS_URL")
    try:
        parts = urlsplit(url or DEFAULT_URL)
        host, port = parts.hostname or "", parts.port or 6379
        client = _client(url or DEFAULT_URL)
    except ValueError as error:
        return [
            failed(f"R3MES_REDIS_URL: {error}", "wanted redis://[user:password@]host:port/0", ExitCode.CONFIGURATION)
        ]
    if subject.offline and host not in _LOOPBACK:
        return [skipped("--offline: nothing leaves this host")]
    facts = RedisFacts(
        place=f"{host}:{port}",
        host=host,
        is_named=bool(url) or "R3MES_REDIS_URL_FILE" in subject.environ,
        has_password=bool(parts.password),
        answer=Answer.FINE,
    )
    try:
        return judge_redis(_ask(client, facts), in_container=subject.in_container)
    finally:
        client.close()


def is_somebody_else(place: str) -> bool:
    """Tell whether someone takes connections there and does not speak as Redis does (over TLS nobody can tell)."""
    said = _greeting(place)
    return said is not None and not said.startswith(REDIS_SAYS)


def answers_as_redis(place: str) -> bool:
    """Tell whether a Redis answers there, whatever it thinks of us."""
    return (_greeting(place) or b"").startswith(REDIS_SAYS)


def _greeting(place: str) -> bytes | None:
    """Return what is said to a PING, empty for nothing; None where no connection is taken."""
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
            connection.settimeout(SECONDS)
            connection.sendall(b"PING\r\n")
            return connection.recv(64)
    except OSError:
        return None


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        socket_connect_timeout=SECONDS,
        socket_timeout=SECONDS,
        retry=Retry(NoBackoff(), retries=0),
        driver_info=None,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )


def _ask(client: redis.Redis, facts: RedisFacts) -> RedisFacts:
    try:
        client.ping()
    except redis.exceptions.NoPermissionError:
        pass  # it knows us
    except (redis.AuthenticationError, redis.exceptions.AuthorizationError) as error:
        return _with(facts, Answer.REFUSED, str(error))
    except redis.ResponseError as error:
        refused = str(error).startswith(("NOAUTH", "WRONGPASS", "DENIED"))
        return _with(facts, Answer.REFUSED if refused else Answer.OTHER, str(error))
    except redis.exceptions.InvalidResponse as error:
        return _with(facts, Answer.OTHER, str(error)[:80])
    except (redis.RedisError, OSError) as error:
        return _with(facts, Answer.OTHER if is_somebody_else(facts.place) else Answer.AWAY, str(error)[:200])
    return replace(facts, info=_info(client), user=_user(client))


def _info(client: redis.Redis) -> dict[str, str] | None:
    """Return what INFO tells, where this user may ask: a service's own user may not, as it should be."""
    try:
        found = client.info("everything")
    except (redis.RedisError, OSError):
        return None
    return {word: str(found[word]) for word in _WORDS if word in found}


def _user(client: redis.Redis) -> str:
    try:
        return str(client.acl_whoami())
    except (redis.RedisError, OSError):
        return ""


def _with(facts: RedisFacts, answer: Answer, error: str) -> RedisFacts:
    return replace(facts, answer=answer, error=error)
