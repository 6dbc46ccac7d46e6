"""Where the bytes come from: Hugging Face or its mirror, the token, IPFS gateways. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from launcher.doctor.judges.network import unreachable
from launcher.doctor.verdict import Verdict, failed, from_error, ok, warning
from services.downloader.run_once import Look
from shared.errors import ExitCode, IntegrityError, R3mesError

REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_CERTIFICATE_NEXT = (
    "look at the check clock; where a proxy opens TLS, REQUESTS_CA_BUNDLE names a file with its certificate"
)
_NETWORK_NEXT = "look at the checks route, dns and proxy above; `r3mes import FILE` takes a file from a disk"


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """`where` says by which name it came, empty: there is none. `is_sent`: the pinned source is the endpoint's own."""

    where: str
    has_space: bool
    is_sent: bool
    endpoint: str
    status: int | None


def judge_source(model: str, look: Look, *, needed: bool) -> Verdict:
    """The pinned source must answer, agree with the pin, and give a byte."""
    details = _details(look)
    if look.error is None:
        matches = "digest and size match the pin" if look.sha256 else "it gives bytes"
        return ok(f"{_host(look.url)}: {matches} ({look.seconds * 1000:.0f} ms)", about=model, **details)
    if isinstance(look.error, IntegrityError):
        return from_error(look.error, about=model, **details)
    is_certificate = "certificate" in look.error.message.lower()
    next_step = look.error.next_step or (_CERTIFICATE_NEXT if is_certificate else _NETWORK_NEXT)
    return unreachable(_said(look.url, look.error), next_step, needed=needed, about=model, **details)


def judge_gateway(look: Look) -> Verdict:
    """A gateway is asked only when the source failed, so that none of its failures is one of this host."""
    gateway = _host(look.url)
    if look.error is None:
        return ok(f"{gateway} gives bytes ({look.seconds * 1000:.0f} ms)", about=gateway, **_details(look))
    return warning(
        _said(look.url, look.error),
        "downloads fall back to the other gateways; R3MES_IPFS_GATEWAYS names your own",
        about=gateway,
        **_details(look),
    )


def judge_mirror(endpoint: str, default: str, problem: str) -> Verdict:
    """HF_ENDPOINT must be an address that may be asked, and in the clear only on this host."""
    if endpoint == default:
        return ok(f"none; {_host(default)} itself is asked")
    if problem:
        return failed(f"HF_ENDPOINT may not be asked: {problem}", "correct HF_ENDPOINT", ExitCode.CONFIGURATION)
    parts = urlsplit(endpoint)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        return warning(
            f"HF_ENDPOINT={endpoint} is asked in the clear: whoever listens sees the token",
            "use https, or no HF_TOKEN with it",
            endpoint=endpoint,
        )
    return ok(f"{endpoint} is asked in place of {_host(default)}", endpoint=endpoint)


def judge_token(token: TokenFacts) -> Verdict:
    """A gated repository needs a token; one that is refused is named, never shown."""
    if not token.where:
        return _judge_none(token)
    if token.has_space:
        return failed(
            f"{token.where} has a space or a line end within it",
            "paste the token again, without anything around it",
            ExitCode.CONFIGURATION,
        )
    if not token.is_sent:
        return ok(f"from {token.where}; not sent, since no pinned source is on {_host(token.endpoint)}")
    if token.status in REFUSED:
        return failed(
            f"the source refuses the token from {token.where} ({token.status})",
            "make a new one with the right to read, and accept the repository's terms on the website",
            ExitCode.SOURCE_UNAVAILABLE,
        )
    heard = "the source could not be asked about it" if token.status is None else "the source takes it"
    return ok(f"from {token.where}; {heard}")


def _judge_none(token: TokenFacts) -> Verdict:
    if token.status in REFUSED:
        return failed(
            "the source refuses access, and there is no HF_TOKEN",
            "accept the repository's terms on the website, and set HF_TOKEN or HF_TOKEN_FILE",
            ExitCode.SOURCE_UNAVAILABLE,
        )
    return ok("none is set" + ("; what is pinned needs none" if token.status else ""))


def _said(url: str, error: R3mesError) -> str:
    named = urlsplit(url).hostname or ""
    return error.message if named in error.message else f"{_host(url)}: {error.message}"


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _details(look: Look) -> dict[str, Any]:
    return {
        "url": look.url,
        "status": look.status,
        "seconds": round(look.seconds, 3),
        "first_byte_seconds": None if look.first_byte_seconds is None else round(look.first_byte_seconds, 3),
        "size_bytes": look.size,
        "sha256": look.sha256,
        "revision": look.revision,
    }
