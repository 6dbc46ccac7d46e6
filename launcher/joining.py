"""Letting another host join this one's Redis: a script to run there, with its passwords, the CA and its settings."""

from __future__ import annotations

import shlex
from pathlib import Path

from launcher.credentials import read_password
from shared.errors import ConfigurationError, UsageError
from shared.redis_rights import SERVICES, user_name
from shared.store.atomic import read_hostile_bytes

TLS_PORT = 6380
CA_FILE = Path("secrets/redis/ca.pem")
FILES = "docker-compose.yml:compose.miner.yml"


def read_ca(project: Path) -> str:
    """Return the certificate that the other host is to trust; raises ConfigurationError where there is none."""
    content = read_hostile_bytes(project / CA_FILE)
    if not content or b"-----BEGIN CERTIFICATE-----" not in content or b"PRIVATE KEY" in content:
        raise ConfigurationError(f"no certificate in {CA_FILE}", next_step="deploy/certificates HOST makes it")
    return content.decode("ascii", errors="replace")


def joining_script(credentials: Path, node: str, redis: str, ca: str) -> str:
    """Return a POSIX shell script that writes the secrets and `.env` of the host that is to be `node`.

    Raises ConfigurationError when `init` has not made its passwords, UsageError for a place that is none.
    """
    place = _place(redis)
    lines = [
        f"# For the host {node}: run it there, in the folder of R3MES Hybrid. It holds passwords.",
        "set -eu",
        "[ -f compose.miner.yml ] || { echo 'this is not the folder of R3MES Hybrid' >&2; exit 78; }",
        "[ ! -e .env ] || { echo 'there is a .env; next: move it away, run this, add what you need' >&2; exit 78; }",
        "umask 022",  # read by users that do not exist on that host
    ]
    for service in SERVICES:
        folder = f"secrets/{service}"
        url = f"rediss://{_login(credentials, service, node)}@{place}/0?ssl_ca_certs=/run/{folder}/redis-ca.pem"
        lines += [
            f"mkdir -p {folder}",
            f"printf '%s\\n' {shlex.quote(url)} >{folder}/redis_url",
            f"printf '%s' {shlex.quote(ca)} >{folder}/redis-ca.pem",
        ]
    settings = f"COMPOSE_FILE={FILES}\nR3MES_NODE={node}\n"
    gpu = "with NVIDIA GPUs, add :compose.gpu.yml to COMPOSE_FILE in .env, else the processor works"
    lines += [
        f"printf '%s' {shlex.quote(settings)} >.env",
        f"echo 'next, here: make up; {node} then works; {gpu}' >&2",
    ]
    return "\n".join(lines) + "\n"


def _login(credentials: Path, service: str, node: str) -> str:
    user = user_name(service, node)
    password = read_password(credentials / user)
    if password is None:
        raise ConfigurationError(f"no password for {user} yet", next_step="make up, then ask again")
    return f"{user}:{password}"


def _place(redis: str) -> str:
    host, separator, port = redis.rpartition(":")
    if not separator or "]" in port:
        host, port = redis, str(TLS_PORT)
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.:[]")
    if not host or set(host) - allowed or not port.isascii() or not port.isdigit():
        raise UsageError(f"found {redis!r}, wanted HOST or HOST:PORT", next_step="for example central.example:6380")
    return f"{host}:{port}"
