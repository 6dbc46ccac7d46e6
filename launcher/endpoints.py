"""Where the commands find a running stack: `R3MES_URL`, else a demo that runs, else the default ports of this host.

A demo leaves `endpoints.json` beside its logs while it runs, since a default port may be taken by someone else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import requests
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from shared.settings import CommonSettings, secret_values
from shared.store.atomic import read_hostile_json, replace_json

Role = Literal["miner", "downloader", "verifier"]
DEFAULT_PORTS: Mapping[Role, int] = {"miner": 8080, "downloader": 8081, "verifier": 8082}
LOOPBACK = "127.0.0.1"


class ClientSettings(CommonSettings):
    """What a command that talks to a stack takes from the environment."""

    url: str | None = Field(None, alias="R3MES_URL")
    api_keys: SecretStr | None = Field(None, alias="R3MES_API_KEYS")

    @property
    def api_key(self) -> str | None:
        """The key to send: the first."""
        return next(iter(secret_values(self.api_keys)), None)


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
        return settings.url.rstrip("/")
    document = read_hostile_json(endpoints_file(demo_directory(settings.store_root)))
    if document is not None:
        try:
            return str(getattr(_Endpoints.model_validate(document), role))
        except ValueError:
            pass  # not ours: the default ports
    return f"http://{LOOPBACK}:{DEFAULT_PORTS[role]}"


def session(api_key: str | None = None) -> requests.Session:
    """Return an HTTP session for a stack of our own: no proxy, no `.netrc`, the key if there is one."""
    client = requests.Session()
    client.trust_env = False
    if api_key:
        client.headers["Authorization"] = f"Bearer {api_key}"
    return client


def error_message(answer: requests.Response) -> str:
    """Return what an error answer says for a person, from its OpenAI-shaped body where it has one."""
    try:
        document = answer.json()
        return str(document["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}: {answer.text[:200]!r}"
