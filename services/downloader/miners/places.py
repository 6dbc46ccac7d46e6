"""Where miners are: the URLs of R3MES_MINER_URL, and every address behind each of them."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BeforeValidator

from shared.addresses import is_link_local
from shared.settings import split_list

_DEFAULT_PORTS = {"http": 80, "https": 443}
_WANTED = "wanted http://HOST:PORT, or several separated by commas"


@dataclass(frozen=True, slots=True)
class Place:
    """Scheme, host and port of one URL; the host may be a name with several addresses."""

    scheme: str
    host: str
    port: int

    @property
    def url(self) -> str:
        """The base URL."""
        return _url(self.scheme, self.host, self.port)


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a place, as the socket library takes it."""

    place: Place
    family: int
    ip: str
    target: tuple[Any, ...]

    @property
    def url(self) -> str:
        """The base URL, with the address in place of the name."""
        return _url(self.place.scheme, self.ip, self.place.port)


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def parse_places(value: object) -> object:
    """Read comma-separated base URLs; raises ValueError (for pydantic) for anything else."""
    parts = split_list(value)
    return tuple(_place(part) for part in parts) if isinstance(parts, tuple) else parts


MinerPlaces = Annotated[tuple[Place, ...], BeforeValidator(parse_places)]


def _place(part: object) -> Place:
    if isinstance(part, Place):
        return part
    url = urlsplit(str(part))
    host, port = url.hostname, url.port  # the port raises a ValueError of its own
    if url.scheme not in _DEFAULT_PORTS or not host or url.path not in {"", "/"} or url.query or "@" in url.netloc:
        raise ValueError(_WANTED)
    return Place(url.scheme, host, _DEFAULT_PORTS[url.scheme] if port is None else port)


def resolve(place: Place) -> list[Address]:
    """Return every address of a place in a fixed order, those of IPv4 alone where there are any; none: no such name."""
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # UnicodeError: a label that is too long
        return []
    addresses = {str(target[0]): Address(place, family, str(target[0]), target) for family, _, _, _, target in found}
    allowed = [address for ip, address in addresses.items() if not is_link_local(ip)]
    plain = [address for address in allowed if address.family == socket.AF_INET]
    return sorted(plain or allowed, key=lambda address: ipaddress.ip_address(address.ip.partition("%")[0]).packed)
