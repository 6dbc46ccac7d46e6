"""`r3mes import FILE...`: the command line, what it prints, and its exit code; the work is in `launcher.importing`."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Annotated

import typer

from launcher.display import choose_display, short_path
from launcher.file_session import FileSession
from launcher.help_text import examples
from launcher.importing import Imported, Importer, Result
from launcher.one_shot import hand_over
from launcher.options import AsJson, Quiet
from launcher.session import Done
from launcher.streams import write_data
from launcher.working_folder import working_folder
from shared.acceptance import StartAction, load_init_settings, start_store

# The verifier's: a verified file's directory may be read by others.
_UMASK = 0o022
_AGAIN = "stopped; what is there is kept, and the same command goes on from it"
_PLACED = (
    "a running stack notices the file within R3MES_RECONCILE_SECONDS (15) and its verifier promotes it; "
    "with no stack running, the next start does"
)


def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Model files.", show_default=False)],
    *,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Take model files that you already have, under any name: nothing is downloaded, and the bytes are verified.

    The pin is found by the file's digest. A file that is not pinned is left alone and named; exit code 3.
    """
    hand_over(["import"], files=files, flags={"--json": as_json, "--quiet": quiet}, quiet=quiet)
    settings, values = load_init_settings(os.environ, project=working_folder())
    display = choose_display(quiet=quiet)
    outcome = start_store(settings, values, judge_unchanged=False)
    if outcome.action is StartAction.ACCEPT:
        display.say(f"genesis accepted, sha256 {outcome.sha256}")
    os.umask(_UMASK)
    importer = Importer(outcome.layout, settings.store_kind, display)

    def work(file: Path, stop: threading.Event) -> Done:
        return _done(importer.run(file, stop))

    session = FileSession(work, display, as_json=as_json, stopped=_AGAIN)
    code = session.run(files)
    if as_json:
        document = {"store": str(outcome.layout.root), "kind": settings.store_kind, "files": session.reports}
        write_data(json.dumps(document, indent=2) + "\n")
    elif any(report.get("result") == Result.PLACED for report in session.reports):
        display.say(_PLACED)
    raise typer.Exit(code)


def _done(imported: Imported) -> Done:
    return Done(
        describe(imported),
        {
            "result": imported.result.value,
            "sha256": imported.pin.sha256,
            "model": imported.pin.model_name,
            "path": str(imported.path),
            "message": imported.note,
        },
        note=imported.note,
    )


def describe(imported: Imported) -> str:
    """Say in one line how a file ended."""
    path = short_path(imported.path)
    match imported.result:
        case Result.VERIFIED:
            return f"{imported.pin.model_name}: verified, {path}"
        case Result.ALREADY_VERIFIED:
            return f"{imported.pin.model_name}: already verified, nothing was copied, {path}"
        case Result.PLACED:
            return f"{imported.pin.model_name}: complete, to be verified, {path}"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import", epilog=examples("r3mes import ~/Downloads/model.gguf"))(import_)
