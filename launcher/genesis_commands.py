"""`r3mes genesis show | check | add | accept | migrate`: looking at pins, writing them, making one the accepted one.

Data goes to stdout, hints and questions to stderr. Nothing here decides: `shared.genesis` parses, `shared.acceptance`
accepts, `launcher.genesis_entry` makes entries.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from launcher.confirm import confirm
from launcher.display import choose_display, printable
from launcher.genesis_entry import add_entry, check_addition, check_migration, migrate_legacy, read_legacy
from launcher.hashing import HashedFile, hash_file
from launcher.help_text import examples
from launcher.one_shot import hand_over
from launcher.options import AsJson
from launcher.streams import write_data
from launcher.working_folder import working_folder
from shared.acceptance import (
    AcceptancePlan,
    accept,
    check_stageable,
    load_init_settings,
    plan_acceptance,
    read_candidate,
    stage,
)
from shared.acceptance.settings import DEFAULT_GENESIS
from shared.acceptance.signature import describe_signature
from shared.addresses import AddressPolicy, check_download_sources
from shared.errors import ConfigurationError, GenesisError
from shared.genesis import Genesis, ModelPin
from shared.genesis.difference import describe
from shared.settings import CommonSettings, load_settings
from shared.store.layout import StoreLayout
from shared.store.trust import read_trust

app = typer.Typer(
    help="The genesis: which models are pinned, and which genesis this host has accepted.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_SHOWN_LEFT_OUT = 20
_ADD_EXAMPLE = examples("r3mes genesis add llama.gguf --name Llama-3-8B --url https://huggingface.co/...")
_MIGRATE_EXAMPLE = examples(
    "r3mes genesis migrate old.json --file llama.gguf --name Llama-3-8B --url https://huggingface.co/..."
)


@app.command(epilog=examples("r3mes genesis show"))
def show(*, as_json: AsJson = False) -> None:
    """Show the accepted genesis and, if there is one, the staged one."""
    hand_over(["genesis", "show"], flags={"--json": as_json})
    trust = read_trust(StoreLayout(load_settings(CommonSettings).store_root))
    if as_json:
        print_json({**genesis_data(trust.genesis), "staged": genesis_data(trust.staged) if trust.staged else None})
        return
    _print_genesis("accepted", trust.genesis)
    hint_left_out(trust.genesis)
    if trust.staged:
        _print_genesis("staged", trust.staged)
        hint_left_out(trust.staged)


@app.command(epilog=examples("r3mes genesis check genesis/genesis.json"))
def check(
    file: Annotated[Path, typer.Argument(help="The genesis file.", show_default=False)], *, as_json: AsJson = False
) -> None:
    """Check a genesis file: exit code 0 if it is right, 78 with file, field, found and wanted if not.

    Digest and signature are compared with the settings, if these name any.
    """
    settings, _ = load_init_settings(os.environ, project=working_folder())
    genesis = read_candidate(settings.model_copy(update={"genesis": file})).genesis
    if as_json:
        print_json(genesis_data(genesis))
    else:
        _print_genesis("right", genesis)
    hint_left_out(genesis)
    _hint_addresses(genesis, file)


@app.command(epilog=_ADD_EXAMPLE)
def add(
    file: Annotated[Path, typer.Argument(help="The model, one whole *.gguf file.", show_default=False)],
    name: Annotated[str, typer.Option("--name", help="The model's name, its id everywhere.", show_default=False)],
    url: Annotated[str, typer.Option("--url", help="Where it is downloaded from.", show_default=False)],
    cid: Annotated[str, typer.Option("--cid", help="Its IPFS CID, the fallback.", show_default="none")] = "",
    genesis: Annotated[
        Path | None,
        typer.Option("--genesis", help="The genesis file.", show_default=f"R3MES_GENESIS or {DEFAULT_GENESIS}"),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Hash a model file and pin it: appends to the genesis file, makes it, or fills in a placeholder of that name."""
    path = genesis or _operators_file()
    check_addition(path, file, name=name, url=url, cid=cid)
    hashed = _hash(file)
    result = add_entry(path, hashed, name=name, url=url, cid=cid)
    _print_written(result, hashed, path, as_json=as_json)
    _stderr().print(f"written to {path}\n  next: `r3mes genesis accept` makes it the genesis of this host")


@app.command(epilog=_MIGRATE_EXAMPLE)
def migrate(
    old: Annotated[Path, typer.Argument(help='The old genesis, {"model_ipfs": "Qm..."}.', show_default=False)],
    file: Annotated[Path, typer.Option("--file", help="The model, one whole *.gguf file.", show_default=False)],
    name: Annotated[str, typer.Option("--name", help="The model's name, its id everywhere.", show_default=False)],
    url: Annotated[str, typer.Option("--url", help="Where it is downloaded from.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The new genesis.", show_default="OLD.migrated.json")
    ] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace the new genesis if it is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a new genesis from one of the legacy form and the model's file; the old one is kept."""
    legacy = read_legacy(old)
    path = output or old.with_name(f"{old.stem}.migrated.json")
    check_migration(legacy, path, file, name=name, url=url, overwrite=force)
    hashed = _hash(file)
    result = migrate_legacy(legacy, path, hashed, name=name, url=url, overwrite=force)
    _print_written(result, hashed, path, as_json=as_json)
    err = _stderr()
    if not legacy.cid:
        err.print(f"warning: {old} has no IPFS hash, and so there is no fallback")
    if legacy.other_keys:
        err.print(printable(f"warning: not carried over from {old}: {', '.join(legacy.other_keys)}"))
    err.print(
        f"written to {path}; {old} is as it was\n"
        f"  next: set R3MES_GENESIS={path}, then `r3mes genesis accept` makes it the genesis of this host"
    )


@app.command("accept", epilog=examples("r3mes genesis accept", "r3mes genesis accept --stage"))
def accept_command(
    *,
    staged: Annotated[
        bool, typer.Option("--stage", help="Fetch and verify its models now; a later accept swaps in seconds.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what changes in the operator's genesis (R3MES_GENESIS), ask, and make it the accepted one."""
    hand_over(["genesis", "accept"], flags={"--stage": staged, "--yes": yes, "--json": as_json})
    settings, values = load_init_settings(os.environ, project=working_folder())
    plan = plan_acceptance(settings, values)
    if staged:
        check_stageable(plan)
    is_settled = plan.is_accepted and not plan.has_new_signature and plan.trust.digests.staged is None
    idle = plan.is_staged if staged else is_settled
    if not as_json:
        _print_plan(plan, _stdout())
    elif not (idle or yes):
        _print_plan(plan, _stderr())  # what is asked about has to be seen
    hint_left_out(plan.candidate.genesis)
    if not idle:
        if not yes:
            confirm("Stage this genesis?" if staged else "Accept this genesis?")
        (stage if staged else accept)(plan)
    if as_json:
        print_json(_plan_data(plan, done="staged" if staged else "accepted"))
        return
    word = "staged" if staged else "accepted"
    _stderr().print(f"{word} already; nothing to do" if idle else f"{word}; running services notice by themselves")


def _operators_file() -> Path:
    """Return the file that R3MES_GENESIS names, or the default; raises ConfigurationError."""
    path = Path(os.environ.get("R3MES_GENESIS", "").strip() or DEFAULT_GENESIS)
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ConfigurationError(f"R3MES_GENESIS: {path}: no such home", next_step="correct R3MES_GENESIS") from error


def _hash(file: Path) -> HashedFile:
    display = choose_display()
    try:
        return hash_file(file, lambda done, total: display.progress("hash", done, total))
    finally:
        display.pause()


def _print_written(genesis: Genesis, hashed: HashedFile, path: Path, *, as_json: bool) -> None:
    """Print the model that was written, and on stderr what speaks against it."""
    pin = genesis.by_digest(hashed.sha256)
    if as_json:
        print_json(genesis_data(genesis))
    elif pin is not None:
        _print_pin(pin)
    if not hashed.looks_like_gguf:
        _stderr().print(f"warning: {hashed.name} does not begin like a GGUF file; no engine will load it")
    _hint_addresses(genesis, path)


def _print_plan(plan: AcceptancePlan, out: Console) -> None:
    before = plan.trust.digests.accepted if plan.trust.digests.agree else None
    out.print(f"file      {plan.candidate.path}")
    out.print(f"accepted  {before or 'nothing yet'}")
    out.print(f"new       {plan.candidate.sha256}")
    if plan.candidate.signature is not None:
        out.print(f"signature {describe_signature(plan.candidate.signature)}")
    if plan.chain is not None:
        out.print(f"chain     {plan.chain.describe()}")
    if not plan.is_accepted:
        out.print(describe(plan.changes))
    elif plan.trust.digests.staged is not None:
        out.print("  the same as accepted; this ends the staging of another genesis")
    elif plan.has_new_signature:
        out.print("  the same as accepted; this records its signature")


def _plan_data(plan: AcceptancePlan, *, done: str) -> dict[str, object]:
    changes = [
        {
            "before": change.before.to_json() if change.before else None,
            "after": change.after.to_json() if change.after else None,
        }
        for change in plan.changes
    ]
    return {"result": done, "sha256": plan.candidate.sha256, "changes": changes}


def hint_left_out(genesis: Genesis) -> None:
    """Say on stderr which active entries of a chain genesis are not taken, and why; as many as a person reads."""
    err = _stderr()
    for each in genesis.left_out[:_SHOWN_LEFT_OUT]:
        err.print(f"left out: {each.name} at {each.path} {each.reason}")
    if len(genesis.left_out) > _SHOWN_LEFT_OUT:
        err.print(f"left out: {len(genesis.left_out) - _SHOWN_LEFT_OUT} more (--json shows all)")


def _hint_addresses(genesis: Genesis, path: Path) -> None:
    """Say on stderr when acceptance, with the settings of this moment, would refuse a download source."""
    policy = AddressPolicy.from_environ(os.environ, [pin.download_source for pin in genesis.models])
    try:
        check_download_sources(policy, genesis, file=str(path))
    except GenesisError as error:
        _stderr().print(f"acceptance would refuse this with the present settings: {error.diagnostics()}")


def genesis_data(genesis: Genesis) -> dict[str, object]:
    """Return a genesis as JSON for a script: digest, models, and what was left out of a chain's."""
    return {
        "sha256": genesis.sha256,
        "models": [pin.to_json() for pin in genesis.models],
        "left_out": [dataclasses.asdict(each) for each in genesis.left_out],
    }


def _print_genesis(title: str, genesis: Genesis) -> None:
    _stdout().print(f"{title}  sha256 {genesis.sha256}")
    for pin in genesis.models:
        _print_pin(pin)


def _print_pin(pin: ModelPin) -> None:
    size = "not given" if pin.size_bytes is None else f"{pin.size_bytes} bytes"
    out = _stdout()
    out.print(pin.model_name)
    out.print(f"  file    {pin.file_name}")
    out.print(f"  sha256  {pin.sha256}")
    out.print(f"  source  {pin.download_source}")
    out.print(f"  IPFS    {pin.ipfs_fallback_hash or 'no fallback'}")
    out.print(f"  size    {size}; needs {pin.required_disk_space_gb:g} GB of disk")


def print_json(data: object) -> None:
    """Write data for a script to stdout."""
    write_data(json.dumps(data, indent=2) + "\n")


def _stdout() -> Console:
    return Console(soft_wrap=True, highlight=False, markup=False)


def _stderr() -> Console:
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def register(app_: typer.Typer) -> None:
    """Add the commands."""
    app_.add_typer(app, name="genesis")
