"""What an HTTP answer means, by its status and headers alone. Pure.

Nothing here reads a body: a wrong status, a shifted range, an encoding, another size are found before any byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from services.downloader.sources.base import (
    ExpiredLocationError,
    Facts,
    PermanentSourceError,
    TransientSourceError,
    UpstreamMismatchError,
)

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_EXPIRED = frozenset({400, 401, 403, 404, 410})
_TRY_LATER = frozenset({408, 409, 421, 423, 425, 429})
# Fewer connections may help.
_TOO_MUCH = frozenset({429, 503})
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_UNSATISFIED = re.compile(r"bytes \*/([0-9]{1,18})")
_ETAG = re.compile(r'(?:W/)?"?([0-9a-fA-F]{64})"?')
_NUMBER = re.compile(r"[0-9]{1,18}")
_REVISION = re.compile(r"[\x21-\x7e]{1,255}")
_SERVER_ERRORS = 500
_LONGEST_RETRY_AFTER = 7 * 24 * 3600.0
_RATE_LIMIT = re.compile(r"(?<![A-Za-z])r=0\b[^,]*?;\s*t=([0-9]{1,9})")
_SURELY_AN_EPOCH = 10**9

_ACCESS = "the repository is private or gated: accept its terms on the website and set HF_TOKEN"
# Hugging Face's own words, by X-Error-Code: what happened, and what a person can do.
_SAID = {
    "GatedRepo": ("the repository is gated", _ACCESS),
    "RepoNotFound": (
        "there is no such repository, or it is private",
        "check download_source in the genesis; a private repository needs HF_TOKEN",
    ),
    "RevisionNotFound": ("the repository has no such revision", "check the revision in download_source in the genesis"),
    "EntryNotFound": ("the repository has no such file", "check the file name in download_source in the genesis"),
}


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of an answer; `redirected`: the request had been led to another address."""

    status: int
    headers: Mapping[str, str]
    redirected: bool = False


@dataclass(frozen=True, slots=True)
class Announced:
    """The bytes that an answer announces: `[start, end)` of `size`; `whole`: the file from 0, not the range."""

    start: int
    end: int
    size: int
    whole: bool = False


def facts_of(headers: Mapping[str, str]) -> Facts:
    """Read what Hugging Face says of a file on the first answer; it may veto, never approve."""
    etag = _ETAG.fullmatch(headers.get("X-Linked-Etag", "").strip())
    revision = headers.get("X-Repo-Commit", "").strip()
    return Facts(
        size=_number(headers.get("X-Linked-Size")),
        sha256=etag[1].lower() if etag else None,
        revision=revision if _REVISION.fullmatch(revision) else "",
    )


def announced(head: Head, start: int, end: int, size: int | None) -> Announced:
    """Judge the answer to a request for `[start, end)`; `size` is None while it is not known.

    Raises TransientSourceError, ExpiredLocationError, PermanentSourceError, UpstreamMismatchError.
    """
    refuse_failure(head, size)
    encoding = head.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in {"", "identity"}:
        raise TransientSourceError(f"it encodes the bytes as {encoding[:20]!r}")
    if head.status == HTTPStatus.PARTIAL_CONTENT:
        return _partial(head.headers, start, end, size)
    if head.status == HTTPStatus.OK:
        return _whole(head.headers, size)
    raise TransientSourceError(f"it answers with status {head.status}")


def refuse_failure(head: Head, size: int | None = None) -> None:
    """Raise what a failed answer means; return for any other. `size` is the file's, None while it is not known."""
    status = head.status
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        found = _UNSATISFIED.fullmatch(head.headers.get("Content-Range", "").strip())
        if found and int(found[1]) != size:
            raise UpstreamMismatchError(f"it has only {found[1]} bytes")
        raise TransientSourceError("it refuses the range (416)")
    if head.redirected and status in _EXPIRED:
        raise ExpiredLocationError(f"the address behind the redirect answers {status}")
    if status in _TRY_LATER or status >= _SERVER_ERRORS:
        raise TransientSourceError(
            f"it answers {status} {_phrase(status)}".rstrip(),
            retry_after=retry_after(head.headers),
            is_too_much=status in _TOO_MUCH,
        )
    if status < HTTPStatus.BAD_REQUEST:
        return
    said = head.headers.get("X-Error-Code", "").strip()
    if said in _SAID:
        raise PermanentSourceError(f"{_SAID[said][0]} ({status})", next_step=_SAID[said][1])
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        raise PermanentSourceError(f"access is refused ({status})", next_step=_ACCESS)
    raise PermanentSourceError(
        f"it answers {status} {_phrase(status)}".rstrip(), next_step="check download_source in the genesis"
    )


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return for how many seconds a server asks to wait; None when it says nothing that makes sense.

    Retry-After (a number or a date), else the time until its limit is reset: `RateLimit: "name";r=0;t=55` as Hugging
    Face sends it (draft-ietf-httpapi-ratelimit-headers), `RateLimit-Reset` or `X-RateLimit-Reset` (seconds, or the
    time since the epoch).
    """
    moment = now or datetime.now(UTC)
    wait = _seconds_or_date(headers.get("Retry-After", "").strip(), moment)
    if wait is None:
        limit = _RATE_LIMIT.search(headers.get("RateLimit", ""))
        wait = float(limit[1]) if limit else None
    for name in ("RateLimit-Reset", "X-RateLimit-Reset"):
        value = headers.get(name, "").strip()
        if wait is None and _NUMBER.fullmatch(value):
            wait = float(value) - (moment.timestamp() if float(value) > _SURELY_AN_EPOCH else 0.0)
    return None if wait is None else min(max(0.0, wait), _LONGEST_RETRY_AFTER)


def _seconds_or_date(value: str, now: datetime) -> float | None:
    if _NUMBER.fullmatch(value):
        return float(value)
    try:
        when = parsedate_to_datetime(value)
        return ((when if when.tzinfo else when.replace(tzinfo=UTC)) - now).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):  # the last of a year, or a zone, that is none
        return None


def _partial(headers: Mapping[str, str], start: int, end: int, size: int | None) -> Announced:
    value = headers.get("Content-Range", "").strip()
    match = _CONTENT_RANGE.fullmatch(value)
    if match is None:
        raise TransientSourceError(f"a partial answer without a usable Content-Range ({value[:60]!r})")
    first, last = int(match[1]), int(match[2])
    total = size if match[3] == "*" else int(match[3])
    if total is None:
        raise TransientSourceError("it does not say how large the file is")
    if first != start or not start <= last < min(end, total):
        raise TransientSourceError(f"asked for bytes {start}-{end - 1}, it sends {value[:60]}")
    length = _number(headers.get("Content-Length"))
    if length is not None and length != last + 1 - first:
        raise TransientSourceError(f"Content-Length {length} does not fit {value[:60]}")
    return Announced(first, last + 1, total)


def _whole(headers: Mapping[str, str], size: int | None) -> Announced:
    """The range was ignored: the whole file comes, from 0."""
    length = _number(headers.get("Content-Length"))
    if length is not None and size is not None and length != size:
        # Not a mismatch of upstream yet: pages of proxies and portals look just like this.
        raise TransientSourceError(f"it sends {length} bytes, the file has {size}")
    total = size if size is not None else length
    if not total:
        raise TransientSourceError("it does not say how large the file is")
    return Announced(0, total, total, whole=True)


def _number(value: str | None) -> int | None:
    return int(value) if value is not None and _NUMBER.fullmatch(value.strip()) else None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
