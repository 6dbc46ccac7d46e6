"""Run a command that cannot outlive the process that started it.

`tied(argv)` gives the command line to start instead of `argv`: this file, as a script, asks the kernel to send
`signal_number` when its parent dies (PR_SET_PDEATHSIG survives the exec), looks whether the parent died before that,
and becomes `argv` under the same pid. A wrapper rather than `preexec_fn`, which may deadlock beside threads.

The kernel means the *thread* that started the child: start long-lived children from one that stays, as the main one.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1


def tied(argv: Sequence[str | Path], *, signal_number: int = signal.SIGTERM) -> list[str]:
    """Return the command line that runs `argv` until it ends or the calling process does."""
    # -I -S: nothing of the environment, no site: it starts in about 10 ms.
    prefix = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(signal_number))]
    return [*prefix, *(str(argument) for argument in argv)]


def _main(arguments: Sequence[str]) -> None:
    parent, signal_number, *argv = arguments
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(1)
    os.execvp(argv[0], argv)  # noqa: S606  the whole purpose: the caller's own command, without a shell


if __name__ == "__main__":
    _main(sys.argv[1:])
