"""Where the commands find a running stack: `R3MES_URL`, else a demo that runs, else the default ports of this host.

A demo leaves `endpoints.json` beside its logs while it runs, since a default port may be taken by someone else. A stack
in containers has one door, the gateway; it is asked where nobody listens on a service's own port.

Certificates are judged by the authorities of the web, or by those in the file that `SSL_CERT_FILE` names, which is
where OpenSSL, curl and Python look as well.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

import requests
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from requests.adapters import BaseAdapter

from shared.errors import ConfigurationError, NotReadyError, R3mesError, UsageError
from shared.redaction import without_credentials
from shared.settings import CommonSettings, SentSecret, secret_values
from shared.store.atomic import read_hostile_json, replace_json

Role = Literal["miner", "downloader", "verifier"]
DEFAULT_PORTS: Mapping[Role, int] = {"miner": 8080, "downloader": 8081, "verifier": 8082}
GATEWAY_PORT = 8000
LOOPBACK = "127.0.0.1"
START_A_STACK = "start a stack: `make demo`, or `docker compose up`"
_CONNECT_SECONDS = 1.0
# The first that is set names the file, or the directory, of the authorities to trust: requests' own order.
_CA_NAMES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


def parse_base_url(text: str) -> str:
    """Return the base URL of an OpenAI endpoint, which may end with `/v1`; raises ValueError."""
    try:
        parts = urlsplit(text.strip())
        (parts.hostname or "").encode("idna")  # as the connection will; a label may be empty, or too long
        is_right = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port, a bracket or a name that is none
        is_right = False
    if not is_right:
        raise ValueError("wanted a URL such as http://127.0.0.1:8000")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("wanted a base URL alone; a key goes into R3MES_API_KEYS")
    return parts.geturl().rstrip("/").removesuffix("/v1").rstrip("/")


class ClientSettings(CommonSettings):
    """What a command that talks to a stack takes from the environment."""

    url: Annotated[str, AfterValidator(parse_base_url)] | None = Field(
        None,
        alias="R3MES_URL",
        description="the stack, or for `ask` and `chat` any OpenAI endpoint, with or without `/v1`; unset: a demo that "
        "runs, else the services' own ports on this host, else the gateway's, `http://127.0.0.1:8000`",
    )
    api_keys: SentSecret | None = Field(None, alias="R3MES_API_KEYS", description="the first one is sent")

    @property
    def api_key(self) -> str | None:
        """The key to send: the first."""
        return next(iter(secret_values(self.api_keys)), None)

    def at(self, url: str | None) -> Self:
        """Return the same for the endpoint of `--url`, if one is given; raises UsageError."""
        if url is None:
            return self
        try:
            return self.model_copy(update={"url": parse_base_url(url)})
        except ValueError as error:
            raise UsageError(f"--url: found {without_credentials(ascii(url))}: {error}") from error


class _Endpoints(BaseModel):
    model_config = ConfigDict(extra="ignore")
    miner: str
    downloader: str
    verifier: str


def demo_directory(store_root: Path) -> Path:
    """Where a demo on this store keeps its logs, its lock and its Redis: beside the store."""
    return store_root.parent / "demo"


def endpoints_file(directory: Path) -> Path:
    """The file that says where the demo of this directory listens."""
    return directory / "endpoints.json"


def write_endpoints(directory: Path, urls: Mapping[Role, str]) -> None:
    """Say where a demo listens; raises OSError."""
    replace_json(endpoints_file(directory), dict(urls), mode=0o600)


def base_url(settings: ClientSettings, role: Role) -> str:
    """Return the base URL, without a slash at its end, that answers for `role`."""
    if settings.url:
        return settings.url
    document = read_hostile_json(endpoints_file(demo_directory(settings.store_root)))
    if document is not None:
        try:
            return str(getattr(_Endpoints.model_validate(document), role))
        except ValueError:
            pass  # not ours: the default ports
    port = DEFAULT_PORTS[role]
    if role != "verifier" and not _listens(port) and _listens(GATEWAY_PORT):
        port = GATEWAY_PORT
    return f"http://{LOOPBACK}:{port}"


def _listens(port: int) -> bool:
    """Tell whether somebody on this host takes connections there."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=_CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


class _Session(requests.Session):
    def get_adapter(self, url: str) -> BaseAdapter:
        """Look at the authorities before the first certificate: requests would raise a bare OSError."""
        secure = url.lower().startswith("https://")
        if secure and isinstance(self.verify, str) and not os.path.exists(self.verify):  # noqa: PTH110  may be barred
            name, _ = trusted_authorities() or ("SSL_CERT_FILE", "")
            raise ConfigurationError(f"{name}: there is no {self.verify}", next_step=f"correct {name} or unset it")
        return super().get_adapter(url)


def session(api_key: str | None = None) -> requests.Session:
    """Return an HTTP session for a stack of our own: no proxy, no `.netrc`, the key if there is one.

    A request over https raises ConfigurationError where the file of authorities is missing.
    """
    client = _Session()
    client.trust_env = False
    if (authorities := trusted_authorities()) is not None:
        client.verify = authorities[1]
    if api_key:
        client.headers["Authorization"] = f"Bearer {api_key}"
    return client


def trusted_authorities() -> tuple[str, str] | None:
    """Return the variable that names a file or directory of authorities, and its value."""
    return next(((name, value) for name in _CA_NAMES if (value := os.environ.get(name))), None)


def no_answer(url: str, error: requests.RequestException, *, next_step: str = START_A_STACK) -> R3mesError:
    """Return what it means that a request to `url` failed: NotReadyError, or ConfigurationError of a certificate."""
    if isinstance(error, requests.exceptions.SSLError):
        name, _ = trusted_authorities() or ("SSL_CERT_FILE", "")
        return ConfigurationError(
            f"no secure connection to {url}: {_tls_reason(error)}",
            next_step=f"set {name} to a file with the certificate of the authority that vouches for this server",
        )
    if isinstance(error, requests.Timeout) and not isinstance(error, requests.ConnectTimeout):
        return NotReadyError(f"no answer from {url}: it was silent for too long", next_step="r3mes status")
    if isinstance(error, requests.ConnectionError):
        return NotReadyError(f"no answer from {url}: nothing listens there, or it went away", next_step=next_step)
    return NotReadyError(f"no answer from {url}: {error}", next_step=next_step)


def _tls_reason(error: BaseException) -> str:
    """Return OpenSSL's words, which stand deep in what requests raises."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted ({seen.verify_message})"
        if isinstance(seen, ssl.SSLError) and seen.reason:
            return seen.reason.replace("_", " ").lower()
        seen = seen.__cause__ or seen.__context__
    return str(error)


def error_message(answer: requests.Response) -> str:
    """Return what an error answer says for a person, from its OpenAI-shaped body where it has one."""
    try:
        document = answer.json()
        return str(document["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}: {answer.text[:200]!r}"
