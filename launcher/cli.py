"""The `r3mes` command: sub-commands put together, and the one place where an error becomes an exit code.

An R3mesError is told in one line with its next step on stderr; a traceback is shown only with R3MES_DEBUG=1. A command
is a row of `launcher.commands` and a module with `register(app)`, which is read in when it is called.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from launcher.commands import COMMANDS
from launcher.deferred import add_rows
from launcher.streams import mend_streams, write_data
from shared.errors import ExitCode, R3mesError
from shared.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _tell_version(*, wanted: bool) -> None:
    if wanted:
        write_data(f"r3mes {__version__}\n")
        raise typer.Exit


@app.callback(epilog="r3mes COMMAND --help says more. What is asked for goes to stdout, everything else to stderr.")
def r3mes(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """From a model hash pinned in a genesis file to verified inference on this host."""


add_rows(app, COMMANDS)


def main() -> NoReturn:
    """Run the command line and exit with the code of the contract."""
    mend_streams()
    if "_R3MES_COMPLETE" not in os.environ:  # a person waits for a TAB, and nothing of it is logged
        importlib.import_module("shared.log").configure_logging("r3mes", "warning")
    try:
        app(prog_name="r3mes")
    except R3mesError as error:
        _tell(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except Exception as error:  # noqa: BLE001  the outermost: nobody foresaw it, and a traceback helps who asks for one
        _tell(R3mesError(f"{type(error).__name__}: {error}", next_step="R3MES_DEBUG=1 shows where; please report it"))
        sys.exit(ExitCode.FAILURE)
    sys.exit(ExitCode.OK)


def _tell(error: R3mesError) -> None:
    from rich.console import Console  # noqa: PLC0415  no other command needs it

    from launcher.display import printable  # noqa: PLC0415

    if os.environ.get("R3MES_DEBUG") == "1":
        traceback.print_exc()
    text = printable(f"error: {error.diagnostics()}")  # some of it was said by a server
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(text)


if __name__ == "__main__":
    main()
