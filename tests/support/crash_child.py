"""A child that verifies one digest and may kill itself before its n-th change of the disk.

Children are forked from a server that has everything imported, so that one costs milliseconds.
"""

from __future__ import annotations

import errno
import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

from services.verifier import linux
from services.verifier.run_once import verify_once
from shared.store.layout import StoreLayout

# Everything through which the verifier changes the disk or makes it durable.
_CHANGES = ("fchmod", "fsync", "mkdir", "link", "rename", "unlink", "rmdir", "ftruncate", "pwrite", "write")
KILLED = -signal.SIGKILL

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([__name__])


def start_verification(
    root: Path, digest: str, *, die_before: int = 0, without_tmpfile: bool = False
) -> multiprocessing.process.BaseProcess:
    """Start a verification that kills itself before change number `die_before`, counted from 1 (0: never)."""
    child = context.Process(target=_verify, args=(root, digest, die_before, without_tmpfile))
    child.start()
    return child


def _verify(root: Path, digest: str, die_before: int, without_tmpfile: bool) -> None:
    if without_tmpfile:
        _refuse_tmpfile()
    _die_before(die_before)
    verify_once(StoreLayout(root), digest)


def _die_before(number: int) -> None:
    changes = itertools.count(1)

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **more: object) -> object:
            if next(changes) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **more)

        return call

    for name in _CHANGES:
        setattr(os, name, counted(getattr(os, name)))
    linux._libc.renameat2 = counted(linux._libc.renameat2)


def _refuse_tmpfile() -> None:
    real = os.open

    def refuse(path: str, flags: int, *more: int, **named: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path, flags, *more, **named)

    os.open = refuse
