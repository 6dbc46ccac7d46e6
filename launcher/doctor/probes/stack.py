"""Ports of the loopback interface and the services behind them; nobody is sent a key."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from launcher.doctor.judges.stack import Holder, Port, Service, judge_ports, judge_services
from launcher.doctor.probes.owners import owner_of
from launcher.doctor.probes.redis import answers_as_redis
from launcher.doctor.probes.together import together
from launcher.doctor.subject import Subject
from launcher.doctor.verdict import Verdict, skipped
from launcher.endpoints import (
    DEFAULT_PORTS,
    GATEWAY_PORT,
    LOOPBACK,
    ClientSettings,
    Role,
    base_url,
    session,
)
from launcher.ports import is_free
from shared.settings import load_settings

SECONDS = 2.0
PORTS = {
    GATEWAY_PORT: "gateway",
    **{port: role for role, port in DEFAULT_PORTS.items()},
    6379: "redis",
    9090: "prometheus",
    3000: "grafana",
}
# What the gateway's own /readyz says of the miners behind it (deploy/gateway/gateway.cfg).
_GATEWAY_SAYS = ("ready", "no miner is ready")
# By these names `init`, which runs this in a container, reaches what stands in its own network (docker-compose.yml).
IN_COMPOSE: Mapping[Role, str] = {"downloader": "http://downloader:8081", "miner": "http://gateway:8000"}
ROLES: tuple[Role, ...] = ("downloader", "verifier", "miner")
_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


def check_ports(subject: Subject) -> list[Verdict]:
    """See who has each usual port."""
    if subject.in_container:
        return judge_ports([], in_container=True)
    ports = together([partial(_look_at, number, role) for number, role in PORTS.items()])
    return judge_ports(ports, in_container=False)


def check_services(subject: Subject) -> list[Verdict]:
    """Ask each service of a running stack whether it is ready."""
    if subject.in_container and "R3MES_URL" not in subject.environ:
        if subject.offline:
            return [skipped("--offline: from a container the stack is another host")]
        calls = [partial(_ask_by_url, role, url) for role, url in IN_COMPOSE.items()]
        return judge_services(together(calls), in_container=True)
    names = ("R3MES_URL", "R3MES_MODELS_DIR", "R3MES_STORE_KIND")
    settings = load_settings(ClientSettings, {name: subject.environ.get(name, "") for name in names})
    if subject.offline and settings.url and urlsplit(settings.url).hostname not in _HOSTS:
        return [skipped("--offline, and R3MES_URL is another host")]
    asked = together([partial(_ask_service, settings, role) for role in ROLES])
    return judge_services(asked, in_container=subject.in_container)


def _ask_service(settings: ClientSettings, role: Role) -> Service:
    url = base_url(settings, role)
    is_gateway = bool(settings.url) or url.endswith(f":{GATEWAY_PORT}")
    if role == "downloader" and is_gateway:
        is_there = "models" in (_json(f"{url}/api/v1/status") or {})
        return Service(role, url, answers=is_there, is_ready=is_there)
    if role == "verifier" and is_gateway:
        return Service(role, url, answers=False)  # no gateway leads there
    return _ask_by_url(role, url)


def _ask_by_url(role: Role, url: str) -> Service:
    document = _json(f"{url}/readyz")
    if document is not None and {"ready", "reason"} <= document.keys():
        return Service(role, url, answers=True, is_ready=document["ready"] is True, reason=str(document["reason"]))
    said = _text(f"{url}/readyz").strip()
    return Service(role, url, answers=said in _GATEWAY_SAYS, is_ready=said == _GATEWAY_SAYS[0], reason=said)


def _look_at(number: int, role: str) -> Port:
    if is_free(number):
        return Port(number, role, Holder.NOBODY)
    if _is_ours(number, role):
        return Port(number, role, Holder.OURS)
    return Port(number, role, Holder.OTHER, owner_of(number))


def _is_ours(number: int, role: str) -> bool:
    url = f"http://{LOOPBACK}:{number}"
    match role:
        case "redis":
            return answers_as_redis(f"{LOOPBACK}:{number}")
        case "prometheus":
            return "Prometheus" in _text(f"{url}/-/ready")
        case "grafana":
            return "database" in (_json(f"{url}/api/health") or {})
        case "gateway":
            return "alive" in {_text(f"{scheme}://{LOOPBACK}:{number}/healthz").strip() for scheme in ("http", "https")}
        case _:
            document = _json(f"{url}/readyz") or {}
    return {"ready", "reason"} <= document.keys()


def _json(url: str) -> dict[str, Any] | None:
    answer = _get(url)
    if answer is None:
        return None
    try:
        document = answer.json()
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _text(url: str) -> str:
    answer = _get(url)
    return "" if answer is None else answer.text[:1000]


def _get(url: str) -> requests.Response | None:
    """Ask without any secret; the gateway's certificate is made for its name, not for this host's own address."""
    is_here = urlsplit(url).hostname in _HOSTS
    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    try:
        with session() as client:
            return client.get(url, timeout=SECONDS, verify=not is_here, allow_redirects=False)
    except requests.RequestException:
        return None
