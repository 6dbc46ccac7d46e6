"""`r3mes fleet`: write down which models run on which GPUs and hosts, for Compose and for the gateway."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from launcher.fleet import (
    COMPOSE_FILE,
    GATEWAY_FILE,
    PROMETHEUS_FILE,
    STACK_FILE,
    Pool,
    compose_files,
    compose_override,
    gateway_backends,
    prometheus_hosts,
    read_pools,
)
from launcher.help_text import examples
from launcher.streams import write_data
from launcher.working_folder import working_folder
from shared.acceptance import load_init_settings, read_candidate
from shared.acceptance.settings import read_env_value
from shared.errors import ConfigurationError
from shared.store.atomic import replace_bytes

# Compose reads the first of these by itself, as long as COMPOSE_FILE is not set.
_OVERRIDES = (
    "compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml",
)  # fmt: skip
_FILE_MODE = 0o644  # the gateway's user reads it
_EXAMPLES = examples(
    "r3mes fleet --gpus 0,1,2,3",
    "r3mes fleet --gpus big=0,1 --processor small=2",
    "r3mes fleet --hosts gpu2.example*4,gpu3.example",
)


def fleet(
    *,
    gpus: Annotated[
        list[str] | None, typer.Option("--gpus", metavar="[MODEL=]0,1,…", help="One miner for each of these GPUs.")
    ] = None,
    processor: Annotated[
        list[str] | None, typer.Option("--processor", metavar="[MODEL=]COUNT", help="Miners on the processor.")
    ] = None,
    hosts: Annotated[
        list[str] | None,
        typer.Option("--hosts", metavar="[MODEL=]HOST,…", help="Gateways of other hosts; HOST*2: it has two miners."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a script.")] = False,
) -> None:
    """Write down several models, a miner for each GPU, more hosts: for Compose, the gateway and Prometheus.

    Each option may stand several times; without MODEL= it is about the first model of the genesis. Run it in the
    project's folder, and again for another fleet.
    """
    project = working_folder()
    if not (project / STACK_FILE).is_file():
        raise ConfigurationError(f"no {STACK_FILE} in {project}", next_step="run it in the project's folder")
    settings, _ = load_init_settings(os.environ, project=project)
    models = [pin.model_name for pin in read_candidate(settings).genesis.models]
    pools = read_pools(models, gpus=gpus or (), processors=processor or (), hosts=hosts or ())
    present = _present_files(os.environ, project)
    written = {
        COMPOSE_FILE: compose_override(pools, present),
        GATEWAY_FILE: gateway_backends(pools),
        PROMETHEUS_FILE: prometheus_hosts(pools),
    }
    for name, text in written.items():
        try:
            replace_bytes(project / name, text.encode(), mode=_FILE_MODE)
        except OSError as error:
            raise ConfigurationError(
                f"cannot write {name}: {error.strerror}",
                next_step="correct its rights, or those of its folder, and run the same command again",
            ) from error
    _tell(pools, compose_files(pools, present), as_json=as_json)


def _present_files(environ: Mapping[str, str], project: Path) -> list[str]:
    """Return the files that Compose reads now; raises ConfigurationError for a `.env` that cannot be read."""
    given = environ.get("COMPOSE_FILE") or read_env_value(project / ".env", "COMPOSE_FILE")
    if files := [file for file in given.split(":") if file]:
        return files
    return [STACK_FILE, *[name for name in _OVERRIDES if (project / name).is_file()][:1]]


def _tell(pools: list[Pool], files: str, *, as_json: bool) -> None:
    if as_json:
        write_data(json.dumps({"compose_file": files, "models": [_data(pool) for pool in pools]}) + "\n")
        return
    for pool in pools:
        write_data(f"{pool.model}: {_describe(pool)}\n")
    hint = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    hint.print(f"written: {COMPOSE_FILE}, {GATEWAY_FILE}, {PROMETHEUS_FILE}")
    hint.print(f"next: COMPOSE_FILE={files} in .env; make up; docker compose kill -s USR2 gateway")


def _data(pool: Pool) -> dict[str, object]:
    hosts = [{"address": host.address, "tls": host.tls, "miners": host.miners} for host in pool.hosts]
    return {"model": pool.model, "gpus": pool.gpus, "processor": pool.processors, "hosts": hosts}


def _describe(pool: Pool) -> str:
    parts = [f"GPU {gpu}" for gpu in pool.gpus]
    parts += [f"{pool.processors} on the processor"] if pool.processors else []
    parts += [f"{host.address} ({host.miners})" for host in pool.hosts]
    return ", ".join(parts)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EXAMPLES)(fleet)
