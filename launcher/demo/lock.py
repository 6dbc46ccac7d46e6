"""One demo at a time on one store: a lock that the kernel releases with the process, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.demo.disk import writing_below
from shared.errors import NotReadyError


@contextmanager
def demo_lock(path: Path) -> Iterator[None]:
    """Hold the lock, making its directory where it is not.

    Raises NotReadyError when another demo holds it, StoreError or DiskFullError when it cannot be written.
    """
    with writing_below(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 20).decode(errors="replace").strip()
            raise NotReadyError(
                f"another `r3mes demo` runs on this store (process {holder or 'unknown'})",
                next_step="ask it with `r3mes ask`, or end it with Ctrl-C first",
            ) from error
        with writing_below(path.parent):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
