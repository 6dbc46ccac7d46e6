"""Routes, names, proxies and the clock: what a download stands on. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from launcher.doctor.verdict import Verdict, failed, ok, skipped, warning
from shared.errors import ExitCode

# Seconds by which a clock may differ: certificates and signatures allow minutes, people who compare logs do not.
CLOCK_TOLERANCE = 60.0
EARLIEST_YEAR, LATEST_YEAR = 2024, 2100


@dataclass(frozen=True, slots=True)
class Routes:
    """Whether there is a default route; None where the system does not show its routes."""

    ipv4: bool | None
    ipv6: bool | None


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a name resolves to; `refused` are the addresses that a download would not connect to."""

    host: str
    addresses: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxy settings as they are; `used` is the one for the source, empty when it is asked directly."""

    named: tuple[tuple[str, str], ...]
    source: str
    used: str


def unreachable(summary: str, next_step: str, *, needed: bool, about: str = "", **details: object) -> Verdict:
    """A failure while something is still to be downloaded, else only worth knowing."""
    if needed:
        return failed(summary, next_step, ExitCode.SOURCE_UNAVAILABLE, about=about, **details)
    return warning(f"{summary}; nothing needs it now", next_step, about=about, **details)


def judge_routes(routes: Routes, *, needed: bool) -> Verdict:
    """There must be a way out, over IPv4 or IPv6."""
    if routes.ipv4 is None and routes.ipv6 is None:
        return skipped("this system does not show its routes")
    found = [name for name, there in (("IPv4", routes.ipv4), ("IPv6", routes.ipv6)) if there]
    if found:
        return ok(f"a default route over {' and '.join(found)}")
    return unreachable(
        "no default route: this host has no way out",
        "connect the network, or bring the file by `r3mes import FILE`",
        needed=needed,
    )


def judge_dns(found: Resolved, *, needed: bool) -> Verdict:
    """The name must resolve to addresses that a download may connect to."""
    if found.error:
        return unreachable(
            f"{found.host} cannot be resolved: {found.error}",
            "look at /etc/resolv.conf and the network; behind a proxy set HTTPS_PROXY",
            needed=needed,
            about=found.host,
        )
    if found.refused:
        return unreachable(
            f"{found.host} leads to {', '.join(found.refused)}, which is not a public address",
            "a resolver or a login page redirects the name: mend that, or name a mirror of yours by HF_ENDPOINT",
            needed=needed,
            about=found.host,
        )
    count = len(found.addresses)
    return ok(
        f"{found.host}: {count} address{'es' if count != 1 else ''}", about=found.host, addresses=list(found.addresses)
    )


def judge_proxies(found: Proxies) -> list[Verdict]:
    """Each proxy must be one that a download can use, and the two spellings of a name must not contradict."""
    if not found.named:
        return [ok("none is set")]
    verdicts = [verdict for name, value in found.named if (verdict := _judge_proxy(name, value)) is not None]
    verdicts += _contradictions(found.named)
    if verdicts:
        return verdicts
    how = "asked through the proxy" if found.used else "asked directly (NO_PROXY, or no proxy for it)"
    names = ", ".join(sorted({name.upper() for name, _ in found.named}))
    return [ok(f"{names} set; the source is {how}", source=found.source, used=found.used)]


def _judge_proxy(name: str, value: str) -> Verdict | None:
    if name.upper() == "NO_PROXY":
        return None
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable, parts = False, urlsplit("")
    if not usable:
        return failed(
            f"{name} is not an address", f"wanted {name}=http://host:port", ExitCode.CONFIGURATION, about=name
        )
    if parts.scheme not in {"http", "https"}:
        return failed(
            f"{name} is a {parts.scheme} proxy, which a download cannot use",
            f"set {name} to an http proxy, or unset it",
            ExitCode.CONFIGURATION,
            about=name,
        )
    return None


def _contradictions(named: Sequence[tuple[str, str]]) -> list[Verdict]:
    values = dict(named)
    return [
        warning(
            f"{name} and {name.lower()} differ; the lower-case one counts",
            "set both alike, or one of them",
            about=name,
        )
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
        if name in values and name.lower() in values and values[name] != values[name.lower()]
    ]


def judge_clock(ours: float, date: str, heard_at: float) -> Verdict:
    """Compare with the Date header of a server, where one was asked; the year must make sense in any case."""
    year = datetime.fromtimestamp(ours, UTC).year
    next_step = "set the clock: `timedatectl set-ntp true`"
    if not EARLIEST_YEAR <= year <= LATEST_YEAR:
        return failed(f"this host's clock says the year {year}: no certificate is valid", next_step, ExitCode.FAILURE)
    theirs = _parse(date)
    if theirs is None:
        return ok(f"the year {year} makes sense; no server was asked for the time")
    difference = heard_at - theirs
    if abs(difference) <= CLOCK_TOLERANCE:
        return ok("agrees with the source's clock", difference_seconds=round(difference))
    way = "ahead of" if difference > 0 else "behind"
    return warning(f"{abs(difference):.0f} s {way} the source's clock", next_step, difference_seconds=round(difference))


def _parse(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
