"""Modes bind everybody but root; here a test that runs as root takes another user's place for a while."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

NOBODY = 65534
_NO_OSERROR = 255  # more than any errno


@dataclass(frozen=True, slots=True)
class User:
    """Who a service is in its container: no group but its own, no capability, and its umask."""

    uid: int
    gid: int
    umask: int


@contextlib.contextmanager
def open_directory() -> Iterator[Path]:
    """Yield a directory that everybody may pass through, which pytest's own are not; removed afterwards."""
    home = Path(tempfile.mkdtemp(prefix="r3mes-unprivileged-"))
    try:
        home.chmod(0o755)
        yield home
    finally:
        shutil.rmtree(home)


@contextlib.contextmanager
def unprivileged() -> Iterator[Path]:
    """Yield a directory of a user whom modes bind, as that user: ourselves, or nobody when we are root."""
    is_root = os.geteuid() == 0
    with open_directory() as home:
        try:
            if is_root:
                os.chown(home, NOBODY, NOBODY)
                os.seteuid(NOBODY)  # the effective user alone: its capabilities go with it, and come back
            yield home
        finally:
            if is_root:
                os.seteuid(0)


def errno_as(user: User, deed: Callable[[], object]) -> int:
    """Do `deed` in a child that has become `user` for good; return 0, or the errno of the OSError that it raised.

    Needs root. Any other exception of the deed is printed and fails the test.
    """
    child = os.fork()
    if child == 0:
        code = _NO_OSERROR
        try:
            os.setgroups([])
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
            os.umask(user.umask)
            deed()
            code = 0
        except OSError as error:
            code = error.errno or _NO_OSERROR
        finally:
            if code == _NO_OSERROR:
                traceback.print_exc()
            os._exit(code)  # a child never returns into the tests
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert 0 <= code < _NO_OSERROR, "the deed did not end as deeds do: its traceback is above"
    return code
