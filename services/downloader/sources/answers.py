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
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_UNSATISFIED = re.compile(r"bytes \*/([0-9]{1,18})")
_ETAG = re.compile(r'(?:W/)?"?([0-9a-fA-F]{64})"?')
_NUMBER = re.compile(r"[0-9]{1,18}")
_REVISION = re.compile(r"[\x21-\x7e]{1,255}")
_SERVER_ERRORS = 500
_LONGEST_RETRY_AFTER = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of an answer; `redirected`: the request had been led to another address."""

    status: int
    headers: Mapping[str, str]
    redirected: bool = False


@dataclass(frozen=True, slots=True)
class Announced:
    """The bytes that an answer announces: `[start, end)` of `size`; `restarted`: the whole file, not the range."""

    start: int
    end: int
    size: int
    restarted: bool = False


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
    refuse_failure(head)
    encoding = head.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in {"", "identity"}:
        raise TransientSourceError(f"it encodes the bytes as {encoding[:20]!r}")
    if head.status == HTTPStatus.PARTIAL_CONTENT:
        return _partial(head.headers, start, end, size)
    if head.status == HTTPStatus.OK:
        return _whole(head.headers, start, size)
    raise TransientSourceError(f"it answers with status {head.status}")


def refuse_failure(head: Head) -> None:
    """Raise what a failed answer means; return for any other."""
    status = head.status
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        found = _UNSATISFIED.fullmatch(head.headers.get("Content-Range", "").strip())
        if found:
            raise UpstreamMismatchError(f"it has only {found[1]} bytes")
        raise TransientSourceError("it refuses the range (416)")
    if head.redirected and status in _EXPIRED:
        raise ExpiredLocationError(f"the address behind the redirect answers {status}")
    if status in _TRY_LATER or status >= _SERVER_ERRORS:
        raise TransientSourceError(
            f"it answers {status} {_phrase(status)}".rstrip(), retry_after=retry_after(head.headers)
        )
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        raise PermanentSourceError(
            f"access is refused ({status})",
            next_step="the repository is private or gated: accept its terms on the website and set HF_TOKEN",
        )
    if status >= HTTPStatus.BAD_REQUEST:
        raise PermanentSourceError(
            f"it answers {status} {_phrase(status)}".rstrip(), next_step="check download_source in the genesis"
        )


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds of a Retry-After header (a number or a date), None when there is none that makes sense."""
    value = headers.get("Retry-After", "").strip()
    if _NUMBER.fullmatch(value):
        return min(float(value), _LONGEST_RETRY_AFTER)
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError):
        return None
    moment = when if when.tzinfo else when.replace(tzinfo=UTC)
    return min(max(0.0, (moment - (now or datetime.now(UTC))).total_seconds()), _LONGEST_RETRY_AFTER)


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


def _whole(headers: Mapping[str, str], start: int, size: int | None) -> Announced:
    """The range was ignored: the whole file comes, from 0."""
    length = _number(headers.get("Content-Length"))
    if length is not None and size is not None and length != size:
        # Not a mismatch of upstream yet: pages of proxies and portals look just like this.
        raise TransientSourceError(f"it sends {length} bytes, the file has {size}")
    total = size if size is not None else length
    if not total:
        raise TransientSourceError("it does not say how large the file is")
    return Announced(0, total, total, restarted=start > 0)


def _number(value: str | None) -> int | None:
    return int(value) if value is not None and _NUMBER.fullmatch(value.strip()) else None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
