"""Redis: does it answer, does it know us, does it keep what it is given. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from launcher.doctor.verdict import Verdict, failed, ok, skipped, warning
from shared.errors import ExitCode

OLDEST = (6, 2)
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Answer(StrEnum):
    """How Redis answered."""

    FINE = "fine"
    AWAY = "away"
    REFUSED = "refused"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """`is_named`: the settings name it. `info` is what it told of itself, None where the user may not ask."""

    place: str
    host: str
    is_named: bool
    has_password: bool
    answer: Answer
    error: str = ""
    info: dict[str, str] | None = None
    user: str = ""


def judge_redis(found: RedisFacts, *, in_container: bool) -> list[Verdict]:
    """What the downloader and the verifier need of it."""
    if found.answer is Answer.AWAY:
        return [_judge_away(found, in_container=in_container)]
    if found.answer is Answer.REFUSED:
        return [
            failed(
                f"{found.place} does not let us in: {found.error}",
                "correct user and password in R3MES_REDIS_URL (or its _FILE)",
                ExitCode.CONFIGURATION,
            )
        ]
    if found.answer is Answer.OTHER:
        return [
            failed(
                f"{found.place} is somebody else, who does not answer as Redis does",
                "correct R3MES_REDIS_URL, or end that program; with TLS the address begins with rediss://",
                ExitCode.CONFIGURATION,
            )
        ]
    return _judge_info(found)


def _judge_away(found: RedisFacts, *, in_container: bool) -> Verdict:
    if found.is_named:
        return failed(
            f"{found.place} does not answer: {found.error}",
            "start it, or correct R3MES_REDIS_URL; verified models are served without it",
            ExitCode.NOT_READY,
        )
    if in_container:
        return skipped("in the stack only downloader and verifier reach it; `docker compose ps redis` says how it is")
    return warning(
        f"nothing answers on {found.place}, the default",
        "services on a host need one: set R3MES_REDIS_URL, or start it; `r3mes demo` and Compose bring their own",
    )


def _judge_info(found: RedisFacts) -> list[Verdict]:
    info = found.info
    if info is None:
        return [ok(f"{found.place} lets us in as {found.user or 'this user'}, who may not ask more")]
    version = info.get("redis_version", "")
    details: dict[str, Any] = {
        "version": version,
        "maxmemory_policy": info.get("maxmemory_policy", ""),
        "aof_enabled": info.get("aof_enabled", ""),
    }
    problems: list[Verdict] = []
    if _parsed(version) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        problems.append(
            failed(
                f"version {version or 'unknown'} is too old, wanted {wanted}",
                f"install Redis {wanted} or newer",
                ExitCode.CONFIGURATION,
                **details,
            )
        )
    if info.get("maxmemory_policy") not in {None, "noeviction"}:
        problems.append(
            warning(
                f"maxmemory-policy is {info['maxmemory_policy']}: it may forget jobs",
                "CONFIG SET maxmemory-policy noeviction, and in redis.conf",
                **details,
            )
        )
    if info.get("aof_enabled") == "0":
        problems.append(
            warning(
                "no append-only file: after a restart it is empty",
                "`appendonly yes`; the queue is made anew from the store all the same",
                **details,
            )
        )
    if not found.has_password and found.host not in _LOOPBACK:
        problems.append(
            warning(
                f"{found.place} takes everybody in, without a password",
                "give it users or a password, and put them into R3MES_REDIS_URL",
                **details,
            )
        )
    return problems or [ok(f"{found.place}, version {version}", **details)]


def _parsed(version: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)
