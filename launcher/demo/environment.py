"""The environment of the demo's services: the user's own, with what the demo decides set by name. Pure.

Nothing leaves the machine: Hugging Face is the loopback origin, the only IPFS gateway is an origin that has nothing
under that path, no proxy stands between, and a token of the user's is not sent to anyone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.demo.places import PROJECT
from launcher.endpoints import LOOPBACK, Role

_DROPPED = frozenset({"R3MES_REDIS_URL", "R3MES_LISTEN", "R3MES_URL", "HF_TOKEN", "HF_TOKEN_FILE"})
# The tampered demo takes bytes from the lying origin alone.
_DROPPED_WHEN_TAMPERING = frozenset({"R3MES_IMPORT_DIR"})


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the demo decides: the store, the genesis (None: what was accepted), and where everyone listens."""

    models: Path
    genesis: Path | None
    origin_url: str
    ports: Mapping[Role, int]
    redis_url_file: Path
    tamper: bool

    def url(self, role: Role) -> str:
        """The base URL of a service."""
        return f"http://{LOOPBACK}:{self.ports[role]}"


def common_environment(user: Mapping[str, str], wiring: Wiring) -> dict[str, str]:
    """Return what all services and the acceptance share."""
    dropped = _DROPPED | _DROPPED_WHEN_TAMPERING if wiring.tamper else _DROPPED
    environment = {
        name: value
        for name, value in user.items()
        if name not in dropped and not name.upper().endswith("_PROXY") and name != "PYTHONHOME"
    }
    environment |= {
        "R3MES_MODELS_DIR": str(wiring.models),
        "R3MES_STORE_KIND": "host",
        "HF_ENDPOINT": wiring.origin_url,
        "R3MES_IPFS_GATEWAYS": wiring.origin_url,
        "R3MES_MINER_URL": wiring.url("miner"),
        "R3MES_REDIS_URL_FILE": str(wiring.redis_url_file),
        # A stop need not wait for an answer that nobody reads any more.
        "R3MES_DRAIN_SECONDS": user.get("R3MES_DRAIN_SECONDS", "1"),
        "PYTHONPATH": str(PROJECT),
    }
    if wiring.genesis is not None:
        environment["R3MES_GENESIS"] = str(wiring.genesis)
    return environment


def service_environment(common: Mapping[str, str], wiring: Wiring, role: Role, model_name: str) -> dict[str, str]:
    """Return the whole environment of one service."""
    environment = {**common, "R3MES_LISTEN": f"{LOOPBACK}:{wiring.ports[role]}"}
    if role == "miner":
        environment["R3MES_MODEL"] = model_name
    return environment
