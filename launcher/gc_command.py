"""`r3mes gc`: shows what the store holds of models that no genesis pins, asks, and removes it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.filesize import decimal

from launcher.collecting import Fate, Garbage, Kind, find_garbage, remove, remove_links
from launcher.confirm import confirm
from launcher.display import choose_display, printable
from launcher.help_text import examples
from launcher.one_shot import hand_over
from launcher.options import AsJson, Quiet
from launcher.streams import write_data
from shared.acceptance.store_root import check_store
from shared.acceptance.unpinned import read_pinned
from shared.errors import ExitCode
from shared.settings import CommonSettings, load_settings
from shared.store.layout import StoreLayout

_NOUNS = {Kind.VERIFIED: "model", Kind.INCOMING: "download", Kind.REJECTED: "records"}
_HOUR, _DAY = 3600.0, 86400.0


def gc(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Remove verified models that neither the accepted nor the staged genesis pins, and what is left of such downloads.

    Safe while services run; a miner that still serves such a model stops serving it. Nothing that is pinned is touched.
    """
    flags = {"--dry-run": dry_run, "--yes": yes, "--json": as_json, "--quiet": quiet}
    hand_over(["gc"], flags=flags, quiet=quiet)
    settings = load_settings(CommonSettings)
    layout, kind = StoreLayout(settings.store_root), settings.store_kind
    check_store(layout, kind)
    display = choose_display(quiet=quiet)
    found = find_garbage(layout, read_pinned(layout))
    if not as_json:
        write_data("".join(describe(each) + "\n" for each in found))
    elif found and not (dry_run or yes):
        display.error("\n".join(describe(each) for each in found))  # what is asked about has to be seen
    if found and not (dry_run or yes):
        confirm(f"Remove this and free {decimal(_bytes(found))}?")
    fates = [] if dry_run else [remove(layout, kind, each) for each in found]
    if fates:
        remove_links(layout, kind)
    for each, fate in zip(found, fates, strict=False):
        if fate.kept:
            tell = display.error if fate.has_failed else display.say
            tell(f"kept {describe(each)}: {fate.kept}")
    freed = _bytes(each for each, fate in zip(found, fates, strict=False) if not fate.kept)
    if as_json:
        items = [_as_data(each, fates[number] if fates else None) for number, each in enumerate(found)]
        total = _bytes(found) if dry_run else freed
        document = {"store": str(layout.root), "kind": kind, "dry_run": dry_run, "bytes": total, "items": items}
        write_data(json.dumps(document, indent=2) + "\n")
    else:
        display.say(_summary(found, freed, dry_run=dry_run))
    raise typer.Exit(ExitCode.FAILURE if any(fate.has_failed for fate in fates) else ExitCode.OK)


def describe(garbage: Garbage) -> str:
    """Say in one line what would go."""
    what = [f"{_NOUNS[garbage.kind]:<8}  sha256 {garbage.digest}"]
    if garbage.file_name:
        what.append(printable(garbage.file_name))
    if garbage.kind is Kind.REJECTED:
        what.append(f"{garbage.files} of them")
    what.append(decimal(garbage.bytes))
    if garbage.absent_seconds is not None:
        what.append(f"not pinned for {_duration(garbage.absent_seconds)}")
    return ", ".join(what)


def _summary(found: tuple[Garbage, ...], freed: int, *, dry_run: bool) -> str:
    if not found:
        return "nothing to remove: all that is there is pinned"
    if dry_run:
        return f"would free {decimal(_bytes(found))}; nothing was changed"
    return f"freed {decimal(freed)}"


def _bytes(garbage: Iterable[Garbage]) -> int:
    return sum(each.bytes for each in garbage)


def _duration(seconds: float) -> str:
    if seconds < _HOUR:
        return "less than an hour"
    amount, unit = (seconds / _DAY, "days") if seconds >= 2 * _DAY else (seconds / _HOUR, "hours")
    return f"{amount:.0f} {unit}"


def _as_data(garbage: Garbage, fate: Fate | None) -> dict[str, object]:
    result = "would_be_removed" if fate is None else "kept" if fate.kept else "removed"
    return {
        "kind": garbage.kind.value,
        "sha256": garbage.digest,
        "file_name": garbage.file_name or None,
        "files": garbage.files,
        "bytes": garbage.bytes,
        "absent_seconds": garbage.absent_seconds,
        "result": result,
        "message": fate.kept if fate else "",
    }


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples("r3mes gc --dry-run", "r3mes gc --yes"))(gc)
