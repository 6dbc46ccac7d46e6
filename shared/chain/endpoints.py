"""R3MES_CHAIN_RPC: which nodes are asked. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator

from shared.addresses import AddressPolicy, Origin, origin_of
from shared.genesis.fields import FieldRefusedError, download_source

# With fewer, one liar would be a quorum or stand against one.
LEAST_ENDPOINTS = 3
# Each is asked in a thread of its own, and may send a genesis of 256 MiB.
MOST_ENDPOINTS = 16


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One node's RPC: `url` without a final slash."""

    url: str

    @property
    def origin(self) -> Origin:
        """Scheme, host and port, the only ones that a connection for it goes to."""
        return origin_of(self.url)

    @property
    def name(self) -> str:
        """What stands in logs: host and port; a provider's path may hold a key."""
        return f"{self.origin.host}:{self.origin.port}"


def parse_endpoints(value: object) -> object:
    """Parse a comma-separated list; raises ValueError (for pydantic)."""
    if not isinstance(value, str):
        return value
    parts = [part.strip() for part in value.split(",") if part.strip()]
    endpoints = tuple(_endpoint(number, part) for number, part in enumerate(parts, 1))
    names = [endpoint.name for endpoint in endpoints]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} stands there twice; each node counts once")
    if not LEAST_ENDPOINTS <= len(endpoints) <= MOST_ENDPOINTS:
        raise ValueError(f"wanted {LEAST_ENDPOINTS} to {MOST_ENDPOINTS} RPC endpoints, found {len(endpoints)}")
    return endpoints


def _endpoint(number: int, text: str) -> Endpoint:
    try:
        url = download_source(text)  # the form of a URL, whatever it is for
    except FieldRefusedError as error:
        raise ValueError(f"endpoint {number}: wanted {error.wanted}") from error
    if "?" in url:
        raise ValueError(f"endpoint {number}: found a query in its URL")
    problem = AddressPolicy(frozenset({origin_of(url)})).form_problem(url)
    if problem:
        raise ValueError(f"endpoint {number}: found {problem}")
    return Endpoint(url.rstrip("/"))


ChainRpc = Annotated[tuple[Endpoint, ...], BeforeValidator(parse_endpoints)]
