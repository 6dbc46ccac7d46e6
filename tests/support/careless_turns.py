"""Turns with one fault of a kind that the real ones have not: what does not find them finds nothing."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services.verifier import verification
from services.verifier.verification import Verifier
from tests.support.promotion_modes import FILE_NAME
from tests.support.traced_child import verify

_BUFFER_BYTES = 16 * 1024


def name_before_copying(verifier: Verifier, digest: str) -> str:
    """Copy into the verified name, and take it away again when it turns out to be wrong."""
    layout = verifier.layout
    layout.verified_dir(digest).mkdir()
    hashed = hashlib.sha256()
    data = layout.data(digest)
    target = layout.verified_file(digest, FILE_NAME)
    with data.open("rb", buffering=0) as source, target.open("wb", buffering=0) as copy:
        while buffer := source.read(_BUFFER_BYTES):
            hashed.update(buffer)
            copy.write(buffer)
        os.fsync(copy.fileno())
    (data if hashed.hexdigest() == digest else target).unlink()
    return "promoted"


def remove_before_naming(verifier: Verifier, digest: str) -> str:
    promote = verification.promote

    def careless(*arguments: object) -> object:
        verifier.layout.data(digest).unlink()
        return promote(*arguments)

    with _replaced(verification, "promote", careless):
        return verify(verifier, digest)


def sync_again(verifier: Verifier, digest: str) -> str:
    fsync = os.fsync

    def careless(descriptor: int) -> None:
        try:
            fsync(descriptor)
        except OSError:
            fsync(descriptor)

    with _replaced(os, "fsync", careless):
        return verify(verifier, digest)


def end_at_errors(verifier: Verifier, digest: str) -> str:
    """Take bytes that cannot be read for the end of the file."""
    preadv = os.preadv

    def careless(*arguments: object) -> int:
        try:
            return preadv(*arguments)
        except OSError:
            return 0

    with _replaced(os, "preadv", careless):
        return verify(verifier, digest)


def keep_open(verifier: Verifier, digest: str) -> str:
    """Open without a thought of what may fail before the close."""
    descriptor = os.open(verifier.layout.data(digest), os.O_RDONLY)
    try:
        os.fstat(descriptor)
    except OSError:
        return "error"
    os.close(descriptor)
    return verify(verifier, digest)


def fail_openly(verifier: Verifier, digest: str) -> str:
    os.listdir(verifier.layout.incoming_dir(digest))  # noqa: PTH208 - the call that is made to fail
    return verify(verifier, digest)


def verify_in_a_thread(verifier: Verifier, digest: str) -> str:
    """Not careless: the real turn, in a thread that begins after strace was attached."""
    ended: list[str] = []
    thread = threading.Thread(target=lambda: ended.append(verify(verifier, digest)))
    thread.start()
    thread.join()
    return ended[0]


@contextmanager
def _replaced(where: object, name: str, careless: Callable[..., object]) -> Iterator[None]:
    real = getattr(where, name)
    setattr(where, name, careless)
    try:
        yield
    finally:
        setattr(where, name, real)
