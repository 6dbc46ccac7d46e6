"""More miners than one: which models on which GPUs and hosts, as an override for Compose and backends for the gateway.

Pure: `read_pools` makes sense of what was asked for, `compose_override` and `gateway_backends` write it down. Nothing
here looks at a GPU; whether a device is there is seen where the container starts.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from os.path import normpath
from urllib.parse import urlsplit

from shared.errors import UsageError

COMPOSE_FILE = "compose.fleet.yml"
STACK_FILE = "docker-compose.yml"
GPU_FILE = "compose.gpu.yml"
GATEWAY_FILE = "deploy/gateway/models.cfg"
PROMETHEUS_FILE = "monitoring/prometheus/hosts/fleet.json"
GPU_IMAGE = "r3mes-miner-cuda"
MAX_MINERS = 256
MADE = "# Made by `r3mes fleet`; make it again instead of changing it.\n"
_PORT = 8000  # of another host's gateway
_PROMETHEUS_PORT = 9090


@dataclass(frozen=True, slots=True)
class Host:
    """The gateway of another host, which answers for `miners` miners."""

    address: str
    tls: bool
    miners: int


@dataclass(slots=True)
class Pool:
    """The miners of one model: GPUs of this host by number or UUID, miners on its processor, other hosts."""

    model: str
    gpus: list[str] = field(default_factory=list)
    processors: int = 0
    hosts: list[Host] = field(default_factory=list)


def read_pools(
    models: Sequence[str], *, gpus: Iterable[str], processors: Iterable[str], hosts: Iterable[str]
) -> list[Pool]:
    """Make pools of `[MODEL=]…`, where no model means the first of the genesis; raises UsageError.

    A GPU may serve one model alone: a miner takes all memory that it finds there.
    """
    pools: dict[str, Pool] = {}
    for text in gpus:
        pool, rest = _pool(pools, models, text)
        pool.gpus += _list(rest, "a GPU")
    for text in processors:
        pool, rest = _pool(pools, models, text)
        pool.processors += _count(rest, text)
    for text in hosts:
        pool, rest = _pool(pools, models, text)
        pool.hosts += [_host(part) for part in _list(rest, "a host")]
    devices = [gpu for pool in pools.values() for gpu in pool.gpus]
    if twice := sorted({gpu for gpu in devices if devices.count(gpu) > 1}):
        raise UsageError(f"named twice: GPU {', '.join(twice)}", next_step="give each GPU to one miner")
    if not pools:
        raise UsageError("no miner is asked for", next_step="for example: r3mes fleet --gpus 0,1")
    if len(devices) + sum(pool.processors for pool in pools.values()) > MAX_MINERS:
        raise UsageError(f"more than {MAX_MINERS} miners on one host", next_step="ask for fewer")
    return sorted(pools.values(), key=lambda pool: models.index(pool.model))


def _pool(pools: dict[str, Pool], models: Sequence[str], text: str) -> tuple[Pool, str]:
    name, separator, rest = text.rpartition("=")
    model = name if separator else models[0]
    if model not in models:
        raise UsageError(f"{text}: the genesis has no model {name}", next_step=f"one of: {', '.join(models)}")
    return pools.setdefault(model, Pool(model)), rest


def _list(text: str, what: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts) or any(set(part) - set(_NAME) for part in parts):
        raise UsageError(f"found {text!r}, wanted {what}, or several separated by commas")
    return parts


_NAME = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:/[]*"


def _count(text: str, given: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= MAX_MINERS:
        raise UsageError(f"found {given!r}, wanted a number of miners, at most {MAX_MINERS}")
    return int(text)


def _host(text: str) -> Host:
    """Read `[https://]HOST[:PORT][*MINERS]`."""
    place, star, miners = text.partition("*")
    wanted = f"found {text!r}, wanted HOST, HOST:8000, https://HOST, or one of these with *2 for two miners"
    try:
        url = urlsplit(place if "://" in place else f"http://{place}")
        port = url.port or _PORT
    except ValueError as error:  # a bracket or a port that is none
        raise UsageError(wanted) from error
    if url.scheme not in {"http", "https"} or not url.hostname or url.path or url.username:
        raise UsageError(wanted)
    address = f"[{url.hostname}]:{port}" if ":" in url.hostname else f"{url.hostname}:{port}"
    return Host(address, url.scheme == "https", _count(miners, text) if star else 1)


def compose_files(pools: Sequence[Pool], present: Sequence[str] = (STACK_FILE,)) -> str:
    """Return what `COMPOSE_FILE` has to be, where it names `present`: every other override stays, in its place."""
    files = list(dict.fromkeys(normpath(file) for file in present))
    if COMPOSE_FILE not in files:
        files.append(COMPOSE_FILE)
    has_gpus = any(pool.gpus for pool in pools)
    if has_gpus and GPU_FILE not in files:
        files.insert(files.index(COMPOSE_FILE), GPU_FILE)
    if not has_gpus and _has_own(pools):  # where only other hosts are named, this one's miner goes on as it is
        files = [file for file in files if file != GPU_FILE]
    return ":".join(files)


def _has_own(pools: Sequence[Pool]) -> bool:
    return any(pool.gpus or pool.processors for pool in pools)


def compose_override(pools: Sequence[Pool], present: Sequence[str] = (STACK_FILE,)) -> str:
    """Return the override: a service for each miner that was asked for on this host, in place of the default one."""
    lines = [MADE + f"# In `.env`: COMPOSE_FILE={compose_files(pools, present)}", "services:"]
    lines.append(f"  miner: {{deploy: {{replicas: {int(not _has_own(pools))}}}}}")
    number = 0
    for pool in pools:
        for gpu in [*pool.gpus, *[None] * pool.processors]:
            number += 1
            lines += _miner(number, pool.model, gpu)
    return "\n".join(lines) + "\n"


def _miner(number: int, model: str, gpu: str | None) -> list[str]:
    """One miner; all of them are `miner` to Prometheus and the status page, and its model's to the gateway."""
    lines = [
        f"  miner-{number}:",
        "    extends: {file: docker-compose.yml, service: miner}",
        f"    environment: {{R3MES_MODEL: {_quoted(model)}}}",
        f"    networks: {{inference: {{aliases: [miner, {alias(model)}]}}}}",
    ]
    if gpu is not None:  # the image is the one that compose.gpu.yml builds, for `miner`
        devices = f"[{{driver: nvidia, device_ids: [{_quoted(gpu)}], capabilities: [gpu]}}]"
        lines += [
            f"    image: {GPU_IMAGE}",
            "    build: !reset null",
            "    pull_policy: never",
            f"    deploy: {{resources: {{reservations: {{devices: {devices}}}}}}}",
        ]
    return lines


def _quoted(text: str) -> str:
    """Return a YAML scalar in which Compose substitutes nothing."""
    return json.dumps(text).replace("$", "$$")


def key(model: str) -> str:
    """Return what HAProxy's `ub64enc` makes of a model's name; backends are found by it."""
    return base64.urlsafe_b64encode(model.encode()).decode().rstrip("=")


def alias(model: str) -> str:
    """Return the name in Docker's DNS of the miners that serve a model, whatever its own name is made of."""
    return f"serves-{hashlib.sha256(model.encode()).hexdigest()[:16]}"


def gateway_backends(pools: Sequence[Pool]) -> str:
    """Return HAProxy's part: a list of the models, and for each the miners of this host and the others."""
    lines = [MADE + "# The names are the models' as base64url: HAProxy looks a request's model up by it."]
    if len(pools) > 1:  # no miner knows of the others
        data = [{"id": pool.model, "object": "model", "created": 0, "owned_by": "r3mes"} for pool in pools]
        listed = _in_haproxy(json.dumps({"object": "list", "data": data}))
        answer = f"    http-request return status 200 content-type application/json string {listed}"
        lines += ["", "backend models from common", answer]
    for pool in pools:
        lines += ["", f"backend model_{key(pool.model)} from serving"]
        if pool.gpus or pool.processors:
            lines.append(f"    server-template here 32 {alias(pool.model)}:8080")
        elif not _has_own(pools) and pool is pools[0]:
            lines.append("    server-template here 32 miner:8080")  # the one of docker-compose.yml goes on
        for index, host in enumerate(pool.hosts):
            tls = f" ssl verify required ca-file /tls/ca.pem{_named(host.address)}" if host.tls else ""
            lines += [
                f"    server host{index}-{slot} {host.address} init-addr libc,none{tls}" for slot in range(host.miners)
            ]
    if remote := [pool for pool in pools if pool.hosts]:
        able = " || ".join(f"{{ nbsrv(model_{key(pool.model)}) gt 0 }}" for pool in remote)
        answer = f'    http-request return status 200 content-type text/plain string "ready\\n" if {able}'
        lines += ["", "backend elsewhere from common", answer]
    return "\n".join(lines) + "\n"


def _named(address: str) -> str:
    """Ask for a certificate of this very host: without it HAProxy takes any that the CA has signed."""
    name = address.rpartition(":")[0]
    is_address = name.startswith("[") or not name.rpartition(".")[2].strip("0123456789")
    return "" if is_address else f" verifyhost {name} sni str({name})"  # HAProxy compares names alone


def prometheus_hosts(pools: Sequence[Pool]) -> str:
    """Return Prometheus's part: whose own Prometheus is asked for what it has read."""
    places = sorted({host.address.rpartition(":")[0] for pool in pools for host in pool.hosts})
    targets = [{"targets": [f"{place}:{_PROMETHEUS_PORT}"], "labels": {"host": place}} for place in places]
    return json.dumps(targets, indent=2) + "\n"


def _in_haproxy(document: str) -> str:
    """Return JSON as one of HAProxy's strong quotes, which have no escape for their own end."""
    return "'" + document.replace("'", "\\u0027") + "'"
