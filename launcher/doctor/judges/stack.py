"""Ports of this host, and the services that answer there. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from launcher.doctor.verdict import Verdict, failed, ok, skipped, warning
from shared.errors import ExitCode


class Holder(StrEnum):
    """Who has a port."""

    NOBODY = "nobody"
    OURS = "ours"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Port:
    """A usual port; `owner` says who has it, as far as this user may know."""

    number: int
    role: str
    holder: Holder
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """What a service's `/readyz` says; `answers` is False where nobody is there, or somebody else."""

    role: str
    url: str
    answers: bool
    is_ready: bool = False
    reason: str = ""


def judge_ports(ports: Sequence[Port], *, in_container: bool) -> list[Verdict]:
    """A usual port must be free or ours."""
    if in_container:
        return [skipped("a container has ports of its own; run `r3mes doctor` on the host")]
    taken = [_taken(port) for port in ports if port.holder is Holder.OTHER]
    ours = [f"{port.number} ({port.role})" for port in ports if port.holder is Holder.OURS]
    said = f"ours: {', '.join(ours)}; the others are free" if ours else f"{len(ports)} are free"
    return taken or [ok(said, ports={str(port.number): port.holder.value for port in ports})]


def _taken(port: Port) -> Verdict:
    where = {
        "redis": "R3MES_REDIS_URL names another one",
        "prometheus": "change its line in docker-compose.yml",
        "grafana": "change its line in docker-compose.yml",
        "gateway": "change its line in docker-compose.yml, and set R3MES_URL",
    }.get(port.role, f"R3MES_LISTEN=127.0.0.1:PORT gives the {port.role} another one")
    return warning(
        f"somebody else has port {port.number} ({port.role}): {port.owner or 'another user of this host'}",
        f"end that process, or move: {where}",
        about=f"port {port.number}",
        port=port.number,
        owner=port.owner,
    )


def judge_services(found: Sequence[Service], *, in_container: bool) -> list[Verdict]:
    """Whoever runs must be ready."""
    running = [each for each in found if each.answers]
    if not running and in_container:
        return [skipped("none of the stack answers from here; `docker compose ps` says how it is")]
    if not running:
        return [skipped("no stack answers here: `r3mes demo`, `make up`, or R3MES_URL for another host")]
    verdicts: list[Verdict] = []
    for each in running:
        if each.is_ready:
            verdicts.append(ok(f"ready at {each.url}", about=each.role, url=each.url))
        else:
            verdicts.append(
                failed(
                    f"not ready: {each.reason or 'it gives no reason'}",
                    "`r3mes status` says how far it is; its log says more",
                    ExitCode.NOT_READY,
                    about=each.role,
                    url=each.url,
                )
            )
    absent = [each.role for each in found if not each.answers]
    if absent:
        verdicts.append(skipped(f"no answer from {', '.join(absent)}; behind a gateway they cannot be asked"))
    return verdicts
