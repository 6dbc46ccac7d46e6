"""A child that runs `r3mes import` and sends itself a signal before its n-th change of the disk.

Children are forked from a server that has everything imported, so that one costs a fraction of a second.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from launcher import cli
from services.downloader.interrupt import Interrupt, Reason
from services.verifier import linux

# Everything through which an import changes the disk or makes it durable, the verifier's part included.
CHANGES = frozenset(
    {"chmod", "fchmod", "fsync", "fdatasync", "ftruncate", "posix_fallocate", "pwrite"}
    | {"link", "mkdir", "rename", "replace", "symlink", "unlink"}
)
KILLED = -signal.SIGKILL
_SECONDS = 60.0

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([__name__])


def import_in_child(
    environ: Mapping[str, str],
    cwd: Path,
    file: Path,
    *,
    before: int = 0,
    of: frozenset[str] = CHANGES,
    number: signal.Signals = signal.SIGKILL,
) -> int | None:
    """Import `file`, with signal `number` before call `before` of one `of` these, counted from 1 (0: never).

    Returns the exit code. A signal that can be handled holds that call up until the transfer has been told to stop.
    """
    child = context.Process(target=_import, args=(dict(environ), cwd, file, (before, of, number)))
    child.start()
    child.join(_SECONDS)
    if child.is_alive():
        child.kill()
        child.join()
        raise AssertionError(f"the import with {number.name} before call {before} did not end")
    return child.exitcode


def _import(environ: dict[str, str], cwd: Path, file: Path, end: tuple[int, frozenset[str], signal.Signals]) -> None:
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(cwd)
    with (cwd / "import.log").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    _signal_before(*end)
    sys.argv = ["r3mes", "import", str(file)]
    cli.main()


def _signal_before(before: int, names: frozenset[str], number: signal.Signals) -> None:
    changes = itertools.count(1)
    told = threading.Event()
    tell = Interrupt.tell

    def tell_and_note(self: Interrupt, reason: Reason) -> None:
        tell(self, reason)
        if reason is Reason.OPERATOR:
            told.set()

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **more: object) -> object:
            if next(changes) == before:
                os.kill(os.getpid(), number)
                told.wait(_SECONDS)
            return function(*arguments, **more)

        return call

    Interrupt.tell = tell_and_note  # type: ignore[method-assign]
    for name in names:
        setattr(os, name, counted(getattr(os, name)))
    if "rename" in names:
        linux._libc.renameat2 = counted(linux._libc.renameat2)
