"""`r3mes verify FILE...`: what digest a file has, and whether that is pinned. Nothing is written or accepted by it.

It is compared with what this host has accepted and staged; where nothing is accepted yet, with the operator's genesis.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from launcher.display import Display, choose_display, short_path
from launcher.file_session import FileSession
from launcher.hashing import hash_file
from launcher.help_text import examples
from launcher.importing import NotPinnedError, find_pin
from launcher.interrupts import StoppedError
from launcher.one_shot import hand_over
from launcher.options import AsJson, Quiet
from launcher.session import Done
from launcher.streams import write_data
from launcher.working_folder import working_folder
from shared.acceptance import load_init_settings, read_candidate
from shared.acceptance.store_root import check_store
from shared.acceptance.trust_state import read_trust_state
from shared.store.layout import StoreLayout
from shared.store.trust import Trust, read_trust


@dataclass(frozen=True, slots=True)
class Known:
    """What is pinned, and where that is written: in the store (`is_accepted`) or in the operator's own file."""

    trust: Trust
    path: Path
    is_accepted: bool

    def describe(self) -> str:
        """Say in one line what files are compared with."""
        if not self.is_accepted:
            return f"compared with {self.path}, which is not accepted on this host yet"
        also = f", and the staged {self.trust.staged.sha256}" if self.trust.staged else ""
        return f"compared with the accepted genesis, sha256 {self.trust.genesis.sha256}{also}"

    def as_data(self) -> dict[str, object]:
        """Return the same for a script."""
        return {
            "origin": "accepted" if self.is_accepted else "operator",
            "path": str(self.path),
            "sha256": self.trust.genesis.sha256,
            "staged_sha256": self.trust.staged.sha256 if self.trust.staged else None,
        }


def verify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Model files.", show_default=False)],
    *,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Hash model files and say whether the genesis pins them: exit code 0 if all are pinned, 3 if one is not.

    The name of a file says nothing, its digest does. Files are only read.
    """
    hand_over(["verify"], files=files, flags={"--json": as_json, "--quiet": quiet}, quiet=quiet)
    display = choose_display(quiet=quiet)
    known = find_known()
    display.say(known.describe())

    def work(file: Path, stop: threading.Event) -> Done:
        return judge(file, known.trust, display, stop)

    session = FileSession(work, display, as_json=as_json, stopped="stopped; nothing is known of this file")
    code = session.run(files)
    if as_json:
        write_data(json.dumps({"genesis": known.as_data(), "files": session.reports}, indent=2) + "\n")
    raise typer.Exit(code)


def find_known() -> Known:
    """Return what is pinned on this host.

    Raises StoreError when what was accepted cannot be used, GenesisError where nothing is accepted and the operator's
    file is missing or wrong.
    """
    settings, _ = load_init_settings(os.environ, project=working_folder())
    layout = StoreLayout(settings.store_root)
    check_store(layout, settings.store_kind)
    if not read_trust_state(layout).digests.empty:
        return Known(read_trust(layout), layout.genesis, is_accepted=True)
    candidate = read_candidate(settings)
    return Known(Trust(candidate.genesis), candidate.path, is_accepted=False)


def judge(file: Path, trust: Trust, display: Display, stop: threading.Event) -> Done:
    """Hash one file and look its digest up; raises UsageError when it cannot be read, StoppedError."""

    def show(done: int, size: int) -> None:
        if stop.is_set():
            raise StoppedError
        display.progress("hash", done, size)

    hashed = hash_file(file, show)
    digest = hashed.sha256
    details: dict[str, object] = {"sha256": digest, "size_bytes": hashed.size_bytes}
    try:
        pin = find_pin(trust, file, hashed)
    except NotPinnedError as error:
        return Done(f"{digest}  not pinned  {short_path(file)}", details, error=error)
    details |= {"result": "pinned", "model": pin.model_name, "file_name": pin.file_name}
    is_named_so = hashed.name.casefold() == pin.file_name.casefold()
    note = "" if is_named_so else f"the genesis calls this file {pin.file_name}; the digest is what counts"
    return Done(f"{digest}  {pin.model_name}  {short_path(file)}", details, note)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify", epilog=examples("r3mes verify ~/Downloads/model.gguf"))(verify)
