"""The `r3mes` command: sub-commands put together, and the one place where an error becomes an exit code.

An R3mesError is told in one line with its next step on stderr; a traceback is shown only with R3MES_DEBUG=1.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import NoReturn

import typer
from rich.console import Console

from launcher import gc_command, genesis_commands, import_command, init_command, stack_commands, verify_command
from launcher.streams import mend_streams
from shared.errors import ExitCode, R3mesError
from shared.log import configure_logging

app = typer.Typer(
    help="From a model hash pinned in a genesis file to verified inference on this host.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(init_command.app, name="init")
app.add_typer(genesis_commands.app, name="genesis")
stack_commands.register(app)
import_command.register(app)
verify_command.register(app)
gc_command.register(app)


def main() -> NoReturn:
    """Run the command line and exit with the code of the contract."""
    mend_streams()
    configure_logging("r3mes", "warning")
    try:
        app(prog_name="r3mes")
    except R3mesError as error:
        if os.environ.get("R3MES_DEBUG") == "1":
            traceback.print_exc()
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"error: {error.diagnostics()}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    sys.exit(ExitCode.OK)


if __name__ == "__main__":
    main()
