"""`r3mes init [check]`: what comes before the first service, in a container stack and on a host.

Order: settings, kind of the store, genesis (file, digest, signature, what was accepted), addresses, the chain: the
checks, which `init check` does alone. Then directories with owners and modes, the accepted pair, `store.json`; in a
container stack Redis's `/data` and the credentials as well.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from launcher.credentials import OWNERS, Credentials, prepare_credentials
from launcher.genesis_commands import genesis_data, hint_left_out, print_json
from launcher.help_text import examples
from launcher.joining import joining_script, read_ca
from launcher.mounted import check_mounted
from launcher.options import AsJson
from launcher.streams import write_data
from launcher.working_folder import working_folder
from shared.acceptance import (
    InitSettings,
    StartAction,
    StartOutcome,
    check_start,
    is_redis_given,
    load_init_settings,
    start_store,
)
from shared.acceptance.signature import describe_signature
from shared.errors import ConfigurationError, StoreError, UsageError
from shared.settings import NODE_PATTERN
from shared.store.atomic import open_dir, set_rights
from shared.store.layout import REDIS_UID

# Where Compose mounts these volumes whole, for init alone.
REDIS_DATA = Path("/redis-data")
CREDENTIALS = Path("/credentials")
_REDIS_MODE = 0o700

app = typer.Typer(
    help="Check the settings and the genesis, then prepare the store; `check` stops after the checks.",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def init(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Check the settings and the genesis, accept it at the first start, prepare the store's directories.

    Safe to run again: it changes only what differs. A changed genesis stops it with exit code 78.
    """
    if context.invoked_subcommand is not None:
        context.obj = as_json  # `init --json check` means what `init check --json` does
        return
    settings, values = _settings()
    outcome = start_store(settings, values)
    credentials = None
    if settings.store_kind == "container":
        prepare_redis_data(REDIS_DATA)
        credentials = prepare_credentials(
            CREDENTIALS, settings.node, given=is_redis_given(values), joined=settings.joined_nodes
        )
    _tell(outcome, settings, credentials, as_json=as_json, done=True)


@app.command(epilog=examples("r3mes init check"))
def check(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Do the checks alone, print them, change nothing; the exit codes are those of `init`."""
    settings, values = _settings()
    if settings.store_kind == "container":
        check_mounted(working_folder())
    outcome = check_start(settings, values)
    _tell(outcome, settings, None, as_json=as_json or bool(context.obj), done=False)


@app.command("credentials", epilog=examples("r3mes init credentials secrets/r3mes --every-node"))
def make_credentials(
    directory: Annotated[Path, typer.Argument(help="An empty or new folder.", show_default=False)],
    *,
    node: Annotated[str, typer.Option("--node", help="The one node that the services stand on.")] = "local",
    every_node: Annotated[
        bool, typer.Option("--every-node", help="The services of all nodes are the same users.")
    ] = False,
) -> None:
    """Make Redis's credentials as files, for the secrets of a Swarm or of Kubernetes; Compose makes its own.

    A second run changes nothing.
    """
    if re.fullmatch(NODE_PATTERN, node) is None:
        raise UsageError(f"found {node!r}, wanted a node's name: {NODE_PATTERN}")
    me = (os.geteuid(), os.getegid())
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {directory}: {error.strerror}") from error
    made = prepare_credentials(
        directory, "*" if every_node else node, given=False, owners=dict.fromkeys(OWNERS, me), root_owner=me
    )
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"{directory}: {made}")


@app.command(epilog=examples("r3mes init join gpu-1 --redis main-host:6379 > join.sh"))
def join(
    node: Annotated[str, typer.Argument(help="The name of the host that joins, its R3MES_NODE.", show_default=False)],
    *,
    redis: Annotated[str, typer.Option("--redis", metavar="HOST[:PORT]", help="Where it reaches this host's Redis.")],
) -> None:
    """Print a script that lets another host join this one's Redis, to be run there; it holds passwords.

    The host's name has to stand in R3MES_JOINED_NODES, and the certificates in secrets/redis.
    """
    settings, _ = _settings()
    if node not in settings.joined_nodes:
        raise ConfigurationError(
            f"{node} is not in R3MES_JOINED_NODES", next_step=f"add it in .env, make up, and ask again: {node}"
        )
    write_data(joining_script(CREDENTIALS, node, redis, read_ca(working_folder())))


def prepare_redis_data(path: Path) -> None:
    """Give Redis's volume to Redis, where it is mounted; changes only what differs. Raises StoreError."""
    if not path.is_dir():
        return
    try:
        with open_dir(path) as directory:
            set_rights(directory, owner=(REDIS_UID, REDIS_UID), mode=_REDIS_MODE)
    except OSError as error:
        raise StoreError(
            f"cannot prepare {path}: {error.strerror}", next_step="run init as root with CHOWN and FOWNER"
        ) from error


def _settings() -> tuple[InitSettings, dict[str, str]]:
    return load_init_settings(os.environ, project=working_folder())


def _console() -> Console:
    return Console(soft_wrap=True, highlight=False, markup=False)


def _tell(
    outcome: StartOutcome, settings: InitSettings, credentials: Credentials | None, *, as_json: bool, done: bool
) -> None:
    if as_json:
        print_json(_data(outcome, settings, credentials, done=done))
    else:
        _print(outcome, settings, credentials, done=done)
    hint_left_out(outcome.genesis)


def _data(
    outcome: StartOutcome, settings: InitSettings, credentials: Credentials | None, *, done: bool
) -> dict[str, object]:
    """Return what `_print` says; `action` is what a start does with the genesis, `done` whether this was one."""
    return {
        "action": outcome.action.value,
        "done": done,
        "bind": settings.bind,
        "store": {"root": str(outcome.layout.root), "kind": settings.store_kind},
        "file": None if outcome.candidate is None else str(outcome.candidate.path),
        "genesis": genesis_data(outcome.genesis),
        "signature": _signature(outcome),
        "chain": None if outcome.chain is None else outcome.chain.describe(),
        "redis": None if credentials is None else str(credentials),
    }


def _signature(outcome: StartOutcome) -> str | None:
    text = None if outcome.candidate is None else outcome.candidate.signature
    return None if text is None else describe_signature(text)


def _print(outcome: StartOutcome, settings: InitSettings, credentials: Credentials | None, *, done: bool) -> None:
    out = _console()
    out.print(f"settings  right; ports are published on {settings.bind}")
    out.print(f"store     {outcome.layout.root} ({settings.store_kind})")
    out.print(f"genesis   {_verdict(outcome, done=done)}")
    out.print(f"sha256    {outcome.sha256}")
    if (signature := _signature(outcome)) is not None:
        out.print(f"signature {signature}")
    if outcome.chain is not None:
        out.print(f"chain     {outcome.chain.describe()}")
    out.print(f"models    {', '.join(pin.model_name for pin in outcome.genesis.models)}")
    if credentials is not None:
        out.print(f"redis     {credentials}")


def _verdict(outcome: StartOutcome, *, done: bool) -> str:
    match outcome.action:
        case StartAction.ACCEPT:
            return "accepted" if done else "right; a start accepts it"
        case StartAction.REPAIR:
            return "acceptance completed" if done else "right; a start completes its interrupted acceptance"
        case StartAction.GO_ON_STAGED:
            return "what was accepted goes on; the file is staged, `r3mes genesis accept` swaps to it"
        case _ if outcome.candidate is None:
            return "no file; what was accepted goes on"
        case _:
            return "unchanged since it was accepted"


def register(app_: typer.Typer) -> None:
    """Add the commands."""
    app_.add_typer(app, name="init")
