"""`r3mes import FILE...`: the command line, what it prints, and its exit code; the work is in `launcher.importing`.

Results go to stdout, a line a file or one JSON document; progress, hints and errors to stderr. A file that cannot be
imported does not keep the next one from it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from launcher.display import Display, choose_display, printable, short_path
from launcher.importing import Imported, Importer, NotPinnedError, Result, StoppedError
from launcher.interrupts import Interrupts, run_until_interrupted
from shared.acceptance import StartAction, load_init_settings, start_store
from shared.errors import ExitCode, R3mesError

# The verifier's: a verified file's directory may be read by others.
_UMASK = 0o022
_AGAIN = "stopped; what is there is kept, and the same command goes on from it"
_PLACED = (
    "a running stack notices the file within R3MES_RECONCILE_SECONDS (15) and its verifier promotes it; "
    "with no stack running, the next start does"
)

Report = dict[str, object]


def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Model files.", show_default=False)],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a script.")] = False,
) -> None:
    """Take model files that you already have, under any name: nothing is downloaded, and the bytes are verified.

    The pin is found by the file's digest. A file that is not pinned is left alone and named; exit code 3.

    Example: r3mes import ~/Downloads/model.gguf
    """
    settings, values = load_init_settings(os.environ, project=Path.cwd())
    display = choose_display()
    outcome = start_store(settings, values, judge_unchanged=False)
    if outcome.action is StartAction.ACCEPT:
        display.say(f"genesis accepted, sha256 {outcome.genesis.sha256}")
    os.umask(_UMASK)
    session = _Session(Importer(outcome.layout, settings.store_kind, display), display, as_json=as_json)
    with Interrupts() as interrupts:
        try:
            if not run_until_interrupted(lambda stop: session.run(files, stop), interrupts):
                session.codes.append(ExitCode.INTERRUPTED)
        finally:
            display.pause()
    if as_json:
        document = {"store": str(outcome.layout.root), "kind": settings.store_kind, "files": session.reports}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    elif session.placed:
        display.say(_PLACED)
    raise typer.Exit(exit_code(session.codes))


def exit_code(codes: Sequence[int]) -> int:
    """Return the code of the whole run: an interrupt, then wrong bytes, then the first failure."""
    for code in (ExitCode.INTERRUPTED, ExitCode.INTEGRITY):
        if code in codes:
            return code
    return next((code for code in codes if code), ExitCode.OK)


class _Session:
    """Imports the files one by one, tells how each ended, and remembers it."""

    def __init__(self, importer: Importer, display: Display, *, as_json: bool) -> None:
        self._importer = importer
        self._display = display
        self._as_json = as_json
        self.reports: list[Report] = []
        self.codes: list[int] = []
        self.placed = False

    def run(self, files: Sequence[Path], stop: threading.Event) -> None:
        """Import every file, until told to stop."""
        for file in files:
            if len(files) > 1:
                self._display.say(short_path(file))
            try:
                self._add(self._importer.run(file, stop))
            except StoppedError:
                self._display.pause()
                self._display.say(_AGAIN)
                self._report(file, {"result": "interrupted"}, ExitCode.INTERRUPTED)
                return
            except R3mesError as error:
                self._fail(file, error)
            self._display.pause()

    def _add(self, imported: Imported) -> None:
        self.placed = self.placed or imported.result is Result.PLACED
        self._display.pause()
        if imported.note:
            self._display.say(imported.note)
        if not self._as_json:
            sys.stdout.write(printable(describe(imported)) + "\n")
            sys.stdout.flush()
        details: Report = {
            "result": imported.result.value,
            "sha256": imported.pin.sha256,
            "model": imported.pin.model_name,
            "path": str(imported.path),
            "message": imported.note,
        }
        self._report(imported.file, details, ExitCode.OK)

    def _fail(self, file: Path, error: R3mesError) -> None:
        self._display.pause()
        if os.environ.get("R3MES_DEBUG") == "1":
            traceback.print_exc()
        self._display.say(f"error: {error.diagnostics()}")
        details: Report = {"result": "failed"}
        if isinstance(error, NotPinnedError):
            details = {"result": "not_pinned", "sha256": error.sha256, "pinned": list(error.pinned)}
        details |= {"message": error.message, "next_step": error.next_step}
        self._report(file, details, error.exit_code)

    def _report(self, file: Path, details: Report, code: ExitCode) -> None:
        self.reports.append({"file": str(file), **details, "exit_code": int(code)})
        self.codes.append(code)


def describe(imported: Imported) -> str:
    """Say in one line how a file ended."""
    path = short_path(imported.path)
    match imported.result:
        case Result.VERIFIED:
            return f"{imported.pin.model_name}: verified, {path}"
        case Result.ALREADY_VERIFIED:
            return f"{imported.pin.model_name}: already verified, nothing was written, {path}"
        case Result.PLACED:
            return f"{imported.pin.model_name}: complete, to be verified, {path}"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import")(import_)
