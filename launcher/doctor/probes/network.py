"""Routes from the kernel, names from the resolver, proxies from the environment. No packet but the resolver's."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import requests

from launcher.doctor.judges.network import (
    Proxies,
    Resolved,
    Routes,
    judge_clock,
    judge_dns,
    judge_proxies,
    judge_routes,
)
from launcher.doctor.probes.sources import look_at_source, pins_to_ask, scout
from launcher.doctor.subject import Subject
from launcher.doctor.verdict import Verdict
from shared.addresses import AddressPolicy

_ROUTES_V4, _ROUTES_V6 = Path("/proc/net/route"), Path("/proc/net/ipv6_route")
_V4_FIELDS, _V6_FIELDS = 8, 10
_PROXY_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def check_routes(subject: Subject) -> list[Verdict]:
    """Look for a default route."""
    return [judge_routes(Routes(_default_v4(), _default_v6()), needed=bool(subject.outstanding))]


def check_dns(subject: Subject) -> list[Verdict]:
    """Resolve the sources' hosts, or the proxy's where one stands between."""
    asked = scout(subject)
    places = {_place(asked.source_of(pin)) for pin in pins_to_ask(subject)} or {_place(asked.policy.hf_endpoint)}
    needed = bool(subject.outstanding)
    return [
        judge_dns(resolve(host, port, scheme, asked.policy), needed=needed) for scheme, host, port in sorted(places)
    ]


def check_proxies(subject: Subject) -> list[Verdict]:
    """See which proxies are named, and which one a download takes."""
    asked = scout(subject)
    pins = pins_to_ask(subject)
    source = asked.source_of(pins[0]) if pins else asked.policy.hf_endpoint
    return judge_proxies(Proxies(named_proxies(subject.environ), source, proxy_for(source)))


def check_clock(subject: Subject) -> list[Verdict]:
    """Compare this host's clock with the Date header of a source that is asked anyway."""
    date, heard_at = "", 0.0
    if not subject.offline:
        for pin in pins_to_ask(subject)[:1]:
            look = look_at_source(subject, pin)
            date, heard_at = look.date, look.heard_at
    return [judge_clock(time.time(), date, heard_at)]


def resolve(host: str, port: int, scheme: str, policy: AddressPolicy) -> Resolved:
    """Resolve a name, and say which of its addresses a download would refuse."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        return Resolved(host, error=getattr(error, "strerror", None) or str(error))
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    refused = tuple(each for each in addresses if not policy.allows_connection(scheme, host, port, each))
    return Resolved(host, addresses, refused)


def named_proxies(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the proxy settings in both spellings."""
    spellings = [form for name in _PROXY_NAMES for form in (name, name.lower())]
    return tuple((name, environ[name]) for name in spellings if environ.get(name, "").strip())


def proxy_for(url: str) -> str:
    """Return the proxy by which a download would ask `url`, empty for none."""
    found: dict[str, str] = requests.utils.get_environ_proxies(url, no_proxy=None)
    return requests.utils.select_proxy(url, found) or ""


def _place(url: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(proxy_for(url) or url)
        port = parts.port
    except ValueError:  # a proxy that is no address, which is told by itself
        parts, port = urlsplit(url), None
    return parts.scheme, parts.hostname or "", port or (443 if parts.scheme == "https" else 80)


def _default_v4() -> bool | None:
    rows = _rows(_ROUTES_V4)
    if rows is None:
        return None
    return any(len(row) >= _V4_FIELDS and row[1] == "00000000" and row[7] == "00000000" for row in rows[1:])


def _default_v6() -> bool | None:
    rows = _rows(_ROUTES_V6)
    if rows is None:
        return None
    return any(len(row) >= _V6_FIELDS and row[0] == "0" * 32 and row[1] == "00" and row[9] != "lo" for row in rows)


def _rows(path: Path) -> list[list[str]] | None:
    try:
        return [line.split() for line in path.read_text(encoding="ascii", errors="replace").splitlines()]
    except OSError:
        return None
