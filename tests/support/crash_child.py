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

from services.verifier import follower, linux, low_space, private_copy
from services.verifier.follower import Follower
from services.verifier.run_once import verify_once
from shared.store.layout import StoreLayout
from tests.support.verifier_stand import make_verifier
from tests.support.verifier_store import Store

# Everything through which the verifier changes the disk or makes it durable.
STEP_BYTES = 16 * 1024  # of children whose steps are small, so that a small file has all of them
SMALL_STEPS = (
    (follower, "STEP_BYTES", STEP_BYTES),
    (private_copy, "BUFFER_BYTES", STEP_BYTES),
    (private_copy, "BESIDE_FROM_BYTES", 0),
    (low_space, "COMMIT_BYTES", 4 * STEP_BYTES),
)
_CHANGES = ("fchmod", "fsync", "mkdir", "link", "rename", "unlink", "rmdir", "ftruncate", "pwrite", "write")
KILLED = -signal.SIGKILL

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([__name__])


def start_verification(
    root: Path, digest: str, *, die_before: int = 0, without_tmpfile: bool = False, small_steps: bool = False
) -> multiprocessing.process.BaseProcess:
    """Start a verification that kills itself before change number `die_before`, counted from 1 (0: never)."""
    child = context.Process(target=_verify, args=(root, digest, die_before, without_tmpfile, small_steps))
    child.start()
    return child


def start_following(root: Path, digest: str, *, die_before: int = 0) -> multiprocessing.process.BaseProcess:
    """Start to follow a download in small steps as far as it is announced, and die as `start_verification` does."""
    child = context.Process(target=_follow, args=(root, digest, die_before))
    child.start()
    return child


def _follow(root: Path, digest: str, die_before: int) -> None:
    _take_small_steps()
    steps = Follower(make_verifier(Store(StoreLayout(root))))
    _die_before(die_before)
    while steps.step(digest):
        pass


def _take_small_steps() -> None:
    for module, name, small in SMALL_STEPS:
        setattr(module, name, small)


def _verify(root: Path, digest: str, die_before: int, without_tmpfile: bool, small_steps: bool) -> None:
    if without_tmpfile:
        _refuse_tmpfile()
    if small_steps:
        _take_small_steps()
    _die_before(die_before)
    verify_once(StoreLayout(root), digest)


def _die_before(number: int) -> None:
    _before_changes(lambda change: os.kill(os.getpid(), signal.SIGKILL) if change == number else None)


def _before_changes(act: Callable[[int], object]) -> None:
    """Call `act` with the number of each change of the disk, counted from 1, before it is made."""
    changes = itertools.count(1)

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **more: object) -> object:
            act(next(changes))
            return function(*arguments, **more)

        return call

    for name in _CHANGES:
        setattr(os, name, counted(getattr(os, name)))
    for name in ("renameat2", "fallocate"):
        setattr(linux._libc, name, counted(getattr(linux._libc, name)))


def _refuse_tmpfile() -> None:
    real = os.open

    def refuse(path: str, flags: int, *more: int, **named: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path, flags, *more, **named)

    os.open = refuse
