"""A child that takes the place of a compromised service: its uid and group, and no capabilities. Needs root."""

from __future__ import annotations

import os
from collections.abc import Callable

from shared.store.layout import STORE_GID

_UNEXPECTED = 255


def errno_as(uid: int, deed: Callable[[], object]) -> int:
    """Do `deed` in a child with this uid (0: as we are); return the errno that stopped it, 0 where nothing did.

    The deed must change nothing in this process's memory that the caller wants to see.
    """
    child = os.fork()
    if child == 0:
        _run(uid, deed)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert 0 <= code < _UNEXPECTED, "the deed failed by something else than an error of the system"
    return code


def _run(uid: int, deed: Callable[[], object]) -> None:
    code = _UNEXPECTED
    try:
        if uid:
            os.setgroups([STORE_GID])
            os.setgid(STORE_GID)
            os.setuid(uid)
        deed()
        code = 0
    except OSError as error:
        code = error.errno or _UNEXPECTED
    finally:
        os._exit(code)
