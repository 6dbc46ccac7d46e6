from __future__ import annotations

from datetime import UTC, datetime

import pytest
from requests.structures import CaseInsensitiveDict

from services.downloader.sources.answers import Announced, Head, announced, facts_of, refuse_failure, retry_after
from services.downloader.sources.base import (
    ExpiredLocationError,
    Facts,
    PermanentSourceError,
    TransientSourceError,
    UpstreamMismatchError,
)

SIZE = 1000
DIGEST = "AB" * 32


def head(status: int, *, redirected: bool = False, **headers: str) -> Head:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Head(status, CaseInsensitiveDict(named), redirected)


RIGHT: list[tuple[Head, int | None, Announced]] = [
    (head(206, Content_Range="bytes 100-199/1000", Content_Length="100"), SIZE, Announced(100, 200, SIZE)),
    (head(206, Content_Range="bytes 100-199/1000"), None, Announced(100, 200, SIZE)),
    (head(206, Content_Range="bytes 100-149/1000"), SIZE, Announced(100, 150, SIZE)),
    (head(206, Content_Range="bytes 100-199/*"), SIZE, Announced(100, 200, SIZE)),
    (head(206, Content_Range="bytes 100-199/1001"), SIZE, Announced(100, 200, 1001)),  # the base class refuses it
    (head(200, Content_Length="1000"), SIZE, Announced(0, SIZE, SIZE, whole=True)),
    (head(200), SIZE, Announced(0, SIZE, SIZE, whole=True)),
    (head(200, Content_Length="1000", Content_Encoding="identity"), None, Announced(0, SIZE, SIZE, whole=True)),
]


@pytest.mark.parametrize(("answer", "size", "expected"), RIGHT)
def test_what_an_answer_announces(answer: Head, size: int | None, expected: Announced) -> None:
    assert announced(answer, 100, 200, size) == expected


WRONG: list[tuple[str, Head, type[Exception]]] = [
    ("no Content-Range", head(206), TransientSourceError),
    ("nonsense in Content-Range", head(206, Content_Range="bytes=100-199/1000"), TransientSourceError),
    ("shifted", head(206, Content_Range="bytes 101-200/1000"), TransientSourceError),
    ("from 0", head(206, Content_Range="bytes 0-99/1000"), TransientSourceError),
    ("longer than asked", head(206, Content_Range="bytes 100-200/1000"), TransientSourceError),
    ("backwards", head(206, Content_Range="bytes 100-99/1000"), TransientSourceError),
    ("beyond its own size", head(206, Content_Range="bytes 100-199/150"), TransientSourceError),
    ("a length that lies", head(206, Content_Range="bytes 100-199/1000", Content_Length="99"), TransientSourceError),
    (
        "several ranges",
        head(206, Content_Type="multipart/byteranges; boundary=x", Content_Length="300"),
        TransientSourceError,
    ),
    (
        "compressed",
        head(206, Content_Range="bytes 100-199/1000", Content_Encoding="gzip"),
        TransientSourceError,
    ),
    ("a page instead of the file", head(200, Content_Length="52"), TransientSourceError),
    ("no content", head(204), TransientSourceError),
    ("not satisfiable, and smaller", head(416, Content_Range="bytes */90"), UpstreamMismatchError),
    ("not satisfiable", head(416), TransientSourceError),
    ("a redirect without an address", head(302), TransientSourceError),
    ("too many requests", head(429), TransientSourceError),
    ("unavailable", head(503), TransientSourceError),
    ("a status that nobody knows", head(599), TransientSourceError),
    ("not found", head(404), PermanentSourceError),
    ("gone", head(410), PermanentSourceError),
    ("unauthorised", head(401), PermanentSourceError),
    ("gated", head(403), PermanentSourceError),
    ("legal reasons", head(451), PermanentSourceError),
    ("an expired address", head(403, redirected=True), ExpiredLocationError),
    ("an unauthorised address", head(401, redirected=True), ExpiredLocationError),
]


@pytest.mark.parametrize(("answer", "error"), [c[1:] for c in WRONG], ids=[c[0] for c in WRONG])
def test_an_answer_that_is_wrong_is_refused_before_its_body(answer: Head, error: type[Exception]) -> None:
    with pytest.raises(error):
        announced(answer, 100, 200, SIZE)


def test_a_gated_repository_is_told_with_what_to_do() -> None:
    with pytest.raises(PermanentSourceError) as caught:
        refuse_failure(head(401))
    assert "HF_TOKEN" in caught.value.next_step


@pytest.mark.parametrize(
    ("headers", "facts"),
    [
        (
            {"X-Linked-Etag": f'"{DIGEST}"', "X-Linked-Size": "5", "X-Repo-Commit": "abc"},
            Facts(5, DIGEST.lower(), "abc"),
        ),
        ({"x-linked-etag": f'W/"{DIGEST}"'}, Facts(None, DIGEST.lower(), "")),
        ({"X-Linked-Etag": DIGEST}, Facts(None, DIGEST.lower(), "")),
        ({"X-Linked-Etag": '"d41d8cd98f00b204e9800998ecf8427e"'}, Facts()),
        ({"ETag": f'"{DIGEST}"', "Content-Length": "5"}, Facts()),
        ({"X-Linked-Size": "-5"}, Facts()),
        ({"X-Linked-Size": "5e3"}, Facts()),
        ({"X-Repo-Commit": "a b"}, Facts()),
        ({"X-Repo-Commit": "x" * 300}, Facts()),
    ],
)
def test_what_the_first_answer_says_of_a_file(headers: dict[str, str], facts: Facts) -> None:
    assert facts_of(CaseInsensitiveDict(headers)) == facts


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0.0),
        ("999999999999", 7 * 24 * 3600.0),
        ("soon", None),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Mon, 99999999999999999999 Jan 2026 00:00:00 GMT", None),
        ("Mon, 01 Jan 2026 00:00:00 +99999999999999999999", None),
        ("", None),
        ("-5", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after({"Retry-After": value}, now) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({"RateLimit": '"resolvers";r=0;t=55'}, 55.0, id="Hugging Face's own form"),
        pytest.param({"RateLimit": '"api";r=12;t=55'}, None, id="requests are left"),
        pytest.param({"RateLimit": '"pages";r=3;t=9, "api";r=0;t=42'}, 42.0, id="the second limit is spent"),
        pytest.param({"Retry-After": "7", "RateLimit": '"api";r=0;t=55'}, 7.0, id="Retry-After comes first"),
        pytest.param({"RateLimit-Reset": "30"}, 30.0, id="seconds until the reset"),
        pytest.param({"X-RateLimit-Reset": "1767225690"}, 90.0, id="the time of the reset"),
        pytest.param({"X-RateLimit-Reset": "1767225000"}, 0.0, id="a reset that has been"),
        pytest.param({"X-RateLimit-Reset": "never"}, None, id="nonsense"),
    ],
)
def test_the_time_until_a_limit_is_reset_is_waited_for(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(CaseInsensitiveDict(headers), datetime(2026, 1, 1, tzinfo=UTC)) == seconds


@pytest.mark.parametrize(
    ("code", "words", "step"),
    [
        ("GatedRepo", "gated", "HF_TOKEN"),
        ("RepoNotFound", "no such repository", "HF_TOKEN"),
        ("RevisionNotFound", "no such revision", "revision"),
        ("EntryNotFound", "no such file", "file name"),
    ],
)
def test_what_hugging_face_says_is_told_with_what_to_do(code: str, words: str, step: str) -> None:
    with pytest.raises(PermanentSourceError) as caught:
        refuse_failure(head(404, X_Error_Code=code))
    assert words in caught.value.message
    assert step in caught.value.next_step


@pytest.mark.parametrize(("status", "too_much"), [(429, True), (503, True), (500, False), (408, False)])
def test_which_refusals_ask_for_fewer_connections(status: int, too_much: bool) -> None:
    with pytest.raises(TransientSourceError) as caught:
        refuse_failure(head(status))
    assert caught.value.is_too_much is too_much
