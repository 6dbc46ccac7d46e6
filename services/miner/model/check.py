"""The miner's own check of a verified file: what passes here, through one descriptor, is what the engine loads.

1. open `verified/<sha256>/<file_name>` as a regular file, following no link;
2. its size is the pinned one, where the genesis gives one;
3. its receipt agrees with `fstat`, or (always, if the setting says so) the bytes have the pinned digest;
4. nothing changed while it was hashed, and the name still leads to that inode;
5. its GGUF structure fits the file.

The whole check runs before every load. It writes nothing. The caller owns the descriptor of a CheckedModel.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
from dataclasses import dataclass
from typing import Literal

from services.miner.model.find import identity_by_name
from services.miner.model.gguf import Structure, read_structure
from shared.errors import IntegrityError, NotReadyError, R3mesError
from shared.genesis import ModelPin
from shared.store.layout import StoreLayout
from shared.store.records import StatIdentity
from shared.store.verified import open_verified

BUFFER_BYTES = 4 * 1024 * 1024

Rehash = Literal["changed", "always"]


@dataclass(frozen=True, slots=True)
class CheckedModel:
    """A file that may be loaded, by its open descriptor. `rehashed` says whether its bytes were read for that."""

    pin: ModelPin
    descriptor: int
    identity: StatIdentity
    structure: Structure
    rehashed: bool

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)


def check(layout: StoreLayout, pin: ModelPin, rehash: Rehash, stop: threading.Event) -> CheckedModel:
    """Check the verified file of `pin`; blocks while it hashes, until `stop` is set.

    Raises NotReadyError when there is none (or `stop` was set), IntegrityError when it must not be loaded.
    """
    with open_verified(layout, pin.sha256, pin.file_name) as verified:
        if verified is None:
            raise NotReadyError(f"{pin.model_name} is not verified yet")
        descriptor = os.dup(verified.descriptor)
        trusted = verified.receipt is not None and rehash != "always"
    try:
        identity = StatIdentity.of(os.fstat(descriptor))
        _compare_size(identity, pin)
        if not trusted:
            _compare_digest(descriptor, pin, stop)
        _require_unchanged(layout, pin, descriptor, identity)
        return CheckedModel(pin, descriptor, identity, read_structure(descriptor), rehashed=not trusted)
    except BaseException:
        os.close(descriptor)
        raise


async def check_aside(layout: StoreLayout, pin: ModelPin, rehash: Rehash, stop: threading.Event) -> CheckedModel:
    """Do the same in a thread; who cancels it sets `stop` for good, and loses no descriptor."""
    task = asyncio.create_task(asyncio.to_thread(check, layout, pin, rehash, stop), name="check")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        with contextlib.suppress(R3mesError):
            (await task).close()
        raise


def _compare_size(identity: StatIdentity, pin: ModelPin) -> None:
    if pin.size_bytes is not None and identity.size != pin.size_bytes:
        raise IntegrityError(f"{pin.file_name} has {identity.size} bytes, the genesis pins {pin.size_bytes}")


def _require_unchanged(layout: StoreLayout, pin: ModelPin, descriptor: int, identity: StatIdentity) -> None:
    now = StatIdentity.of(os.fstat(descriptor))
    if now != identity or identity_by_name(layout, pin) != identity:
        raise IntegrityError(f"{pin.file_name} changed while it was checked")


def _compare_digest(descriptor: int, pin: ModelPin, stop: threading.Event) -> None:
    digest = hashlib.sha256()
    offset = 0
    while part := os.pread(descriptor, BUFFER_BYTES, offset):
        digest.update(part)
        offset += len(part)
        if stop.is_set():
            raise NotReadyError("the check was interrupted")
    if digest.hexdigest() != pin.sha256:
        raise IntegrityError(
            f"{pin.file_name} has digest {digest.hexdigest()}, the genesis pins {pin.sha256}",
            next_step="the verifier's next scrub removes it; it is not loaded",
        )
