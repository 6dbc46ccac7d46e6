"""`r3mes init [check]`: what comes before the first service, in a container stack and on a host.

Order: settings, kind of the store, genesis (file, digest, signature, what was accepted), addresses, the chain: the
checks, which `init check` does alone. Then directories with owners and modes, the accepted pair, `store.json`; in a
container stack Redis's `/data` and the credentials as well.
"""

from __future__ import annotations

import os
from pathlib import Path

import typer
from rich.console import Console

from launcher.credentials import Credentials, prepare_credentials
from launcher.genesis_commands import AsJson, genesis_data, hint_left_out, print_json
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
from shared.errors import StoreError
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
        credentials = prepare_credentials(CREDENTIALS, settings.node, given=is_redis_given(values))
    _tell(outcome, settings, credentials, as_json=as_json, done=True)


@app.command()
def check(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Do the checks alone, print them, change nothing; the exit codes are those of `init`."""
    settings, values = _settings()
    outcome = check_start(settings, values)
    _tell(outcome, settings, None, as_json=as_json or bool(context.obj), done=False)


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
    return load_init_settings(os.environ, project=Path.cwd())


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
