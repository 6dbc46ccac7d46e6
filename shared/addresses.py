"""Which addresses may be asked for model bytes (design §4, "Addresses"). Pure: no DNS, no sockets.

Invariant: allowed are public addresses over https, and beyond them only what the operator configured, by exact scheme,
host and port; link-local is never allowed, whoever configured it; a redirect adds nothing.
Order: `AddressPolicy.from_environ` once; at acceptance `form_problem(effective_source(url))`; in the downloader, for
each hop, `form_problem(url)` before DNS and `allows_connection(scheme, host, port, ip)` for the address after it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from shared.errors import ConfigurationError, GenesisError
from shared.genesis import Genesis
from shared.genesis.fields import FieldRefusedError, download_source, is_host

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

HUGGING_FACE = "https://huggingface.co"
PROXY_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LARGEST_PORT = 65535

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_V4_IN_V6 = ipaddress.IPv6Network("::/96")  # deprecated "v4-compatible" addresses, some stacks still route them
# What `is_global` calls public in some Python versions, or what is routed nowhere.
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "3fff::/20")
)


class Origin(NamedTuple):
    """Scheme, host (lower case; an address in its canonical form) and port of a URL."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """What is allowed. `configured` are the operator's origins, `hf_endpoint` an URL without a final slash."""

    configured: frozenset[Origin]
    hf_endpoint: str = HUGGING_FACE

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], download_sources: Iterable[str] = ()) -> AddressPolicy:
        """Build the policy from HF_ENDPOINT, R3MES_IPFS_GATEWAYS, R3MES_ALLOW_HTTP_SOURCES and the proxies.

        `download_sources` are those of the genesis (and the staged one), for R3MES_ALLOW_HTTP_SOURCES=1.
        Raises ConfigurationError naming the variable.
        """
        endpoint = environ.get("HF_ENDPOINT", "").strip().rstrip("/") or HUGGING_FACE
        # Only an endpoint of the operator's own may stand on a private address; huggingface.co itself may not.
        origins = set() if endpoint == HUGGING_FACE else {_configured_origin("HF_ENDPOINT", endpoint)}
        for gateway in _parts(environ.get("R3MES_IPFS_GATEWAYS", "")):
            origins.add(_configured_origin("R3MES_IPFS_GATEWAYS", gateway))
        origins.update(proxy_origins(environ))
        replaced = cls(frozenset(), endpoint)
        allowed = environ.get("R3MES_ALLOW_HTTP_SOURCES", "").strip()
        if allowed == "1":
            origins.update(origin_of(replaced.effective_source(source)) for source in download_sources)
        elif allowed != "0":
            for entry in _parts(allowed):
                host, port = _host_and_port(entry)
                origins.update(Origin(scheme, host, port) for scheme in _DEFAULT_PORTS)
        return cls(frozenset(origins), endpoint)

    def effective_source(self, source: str) -> str:
        """Return `source` with https://huggingface.co replaced by HF_ENDPOINT; others stay as they are."""
        if self.hf_endpoint == HUGGING_FACE or origin_of(source) != origin_of(HUGGING_FACE):
            return source
        parts = urlsplit(source)
        return f"{self.hf_endpoint}{parts.path}" + (f"?{parts.query}" if parts.query else "")

    def form_problem(self, url: str) -> str:
        """Say why this http or https URL may not be asked, judged by its text alone; empty when it may."""
        origin = origin_of(url)
        literal = _literal(origin.host)
        if literal is not None and is_link_local(literal):
            return f"the link-local address {origin.host}"
        if origin in self.configured:
            return ""
        if origin.scheme != "https":
            return f"plain http to {origin.host}"
        if literal is not None and not self.allows_address(literal):
            return f"the address {origin.host}, which is not public"
        return ""

    def allows_origin(self, scheme: str, host: str, port: int) -> bool:
        """Say whether the operator configured exactly this origin."""
        return Origin(scheme.lower(), canonical_host(host), port) in self.configured

    def allows_address(self, address: str | IpAddress) -> bool:
        """Say whether an address is public; what embeds an IPv4 address is judged by that one, too."""
        ip = _unwrap(_as_ip(address))
        if any(ip.version == network.version and ip in network for network in _NOT_PUBLIC):
            return False
        if isinstance(ip, ipaddress.IPv6Address) and ip not in _GLOBAL_UNICAST:
            return False
        return ip.is_global and not ip.is_multicast

    def allows_connection(self, scheme: str, host: str, port: int, address: str | IpAddress) -> bool:
        """Say whether a connection for this origin may go to `address`, which DNS gave for `host`.

        A configured origin may stand anywhere but on a link-local address; any other only over https to a public one.
        """
        if is_link_local(address):
            return False
        if self.allows_origin(scheme, host, port):
            return True
        return scheme.lower() == "https" and self.allows_address(address)


def check_download_sources(policy: AddressPolicy, genesis: Genesis, *, file: str) -> None:
    """Raise GenesisError for the first download source whose form the policy does not allow."""
    for pin in genesis.models:
        source = policy.effective_source(pin.download_source)
        problem = policy.form_problem(source)
        if problem:
            origin = origin_of(source)
            raise GenesisError(
                file=file,
                field=f"download_source of {pin.model_name}",
                found=problem,
                wanted="https to a public host, or what the operator allows",
                next_step="use an https URL, or, in a laboratory, allow this one: "
                f"R3MES_ALLOW_HTTP_SOURCES={_show_host(origin.host)}:{origin.port}",
            )


def proxy_origins(environ: Mapping[str, str]) -> frozenset[Origin]:
    """Return the origins of the proxies that the environment names."""
    values = {environ.get(spelling, "") for name in PROXY_NAMES for spelling in (name, name.lower())}
    return frozenset(origin for value in values for origin in _proxy_origin(value))


def origin_of(url: str) -> Origin:
    """Return the origin of a well-formed http or https URL."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return Origin(scheme, canonical_host(parts.hostname or ""), parts.port or _DEFAULT_PORTS[scheme])


def canonical_host(host: str) -> str:
    """Return a host in the form in which hosts are compared."""
    bare = host.lower().strip("[]").rstrip(".")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return bare


def is_link_local(address: str | IpAddress) -> bool:
    """Say whether an address, or the IPv4 address within it, is link-local (cloud metadata lives there)."""
    ip = _as_ip(address)
    return ip.is_link_local or _unwrap(ip).is_link_local


def _as_ip(address: str | IpAddress) -> IpAddress:
    # A zone ("%eth0") says through which link, not which address.
    return ipaddress.ip_address(address.partition("%")[0]) if isinstance(address, str) else address


def _unwrap(ip: IpAddress) -> IpAddress:
    """Return the IPv4 address that a v4-mapped, v4-compatible, NAT64 or 6to4 address leads to, else `ip`."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    embedded = ip.ipv4_mapped or ip.sixtofour
    if embedded is None and (ip in _NAT64 or ip in _V4_IN_V6) and int(ip) > 1:
        embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return embedded or ip


def _literal(host: str) -> IpAddress | None:
    if host == "localhost" or host.endswith(".localhost"):
        return ipaddress.IPv4Address("127.0.0.1")
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _configured_origin(name: str, url: str) -> Origin:
    try:
        checked = download_source(url)
    except FieldRefusedError as error:
        raise ConfigurationError(
            f"{name}: found {error.found}, wanted {error.wanted}", next_step=f"correct {name}"
        ) from error
    if "?" in checked:
        raise ConfigurationError(f"{name}: found a query in the URL", next_step=f"remove the query from {name}")
    return origin_of(checked)


def _proxy_origin(value: str) -> list[Origin]:
    """Return the origin of a proxy; user info is allowed here, and a proxy that is no http proxy opens nothing."""
    if not value.strip():
        return []
    try:
        parts = urlsplit(value.strip() if "://" in value else f"http://{value.strip()}")
        port = parts.port
    except ValueError:
        return []
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        return []
    return [Origin(parts.scheme, canonical_host(parts.hostname), port or _DEFAULT_PORTS[parts.scheme])]


def _host_and_port(entry: str) -> tuple[str, int]:
    host, separator, port = entry.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    right = separator and is_host(bare.lower()) and (":" not in bare or bare != host)
    if not right or not port.isascii() or not port.isdigit() or not 0 < int(port) <= _LARGEST_PORT:
        raise ConfigurationError(
            f"R3MES_ALLOW_HTTP_SOURCES: found {ascii(entry)[:80]}, wanted host:port, separated by commas, or 1",
            next_step="for example R3MES_ALLOW_HTTP_SOURCES=127.0.0.1:8000",
        )
    return canonical_host(bare), int(port)


def _show_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
