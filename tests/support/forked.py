"""What a process that was forked from a nursery does to be a service of its own: used by those who fork services."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def run_as_child(run: Callable[[], int], environ: dict[str, str], cwd: str, log: str) -> int:
    """Take over environment, folder and log of a service, run it, and return its exit code; dies with the nursery."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for target, descriptor in ((0, null), (1, output), (2, output)):
        os.dup2(descriptor, target)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(cwd)
    try:
        return run()
    except BaseException:  # noqa: BLE001 - a child never returns into the nursery's loop
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        return 70
    finally:
        sys.stderr.flush()
