"""A child that verifies one digest, and copies the disk's image before each of its changes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from services.verifier import copies, verification
from services.verifier.run_once import verify_once
from shared.store.layout import StoreLayout
from tests.support.crash_child import _before_changes, context

CHILD_SECONDS = 120.0
PROMOTED = "promoted"
CLONED = "cloned"


def photographs_of(
    root: Path, digest: str, disk: Path, photographs: Path, *, without_fsync: bool = False
) -> list[Path]:
    """Verify in a child; return images of the disk before each change and at the end, in their order.

    From the moment at which the promotion has returned their names say so. `disk` is the image that is mounted.
    """
    child = context.Process(target=_photograph, args=(root, digest, disk, photographs, without_fsync))
    child.start()
    child.join(CHILD_SECONDS)
    assert child.exitcode == 0
    assert (photographs / CLONED).exists(), "the copy was no clone"
    return sorted(photographs.glob("*.img"))


def _photograph(root: Path, digest: str, disk: Path, photographs: Path, without_fsync: bool) -> None:
    state = "before"
    real_promote, real_clone = verification.promote, copies.open_cloned_copy

    def promote(*arguments: object) -> os.stat_result:
        nonlocal state
        status = real_promote(*arguments)  # type: ignore[arg-type]
        state = PROMOTED
        return status

    def clone(*arguments: object, **named: object) -> object:
        copy = real_clone(*arguments, **named)  # type: ignore[arg-type]
        if copy is not None:
            (photographs / CLONED).touch()
        return copy

    def photograph(number: int) -> None:
        target = photographs / f"{number:04}-{state}.img"
        subprocess.run(["cp", "--sparse=always", "--reflink=never", disk, target], check=True)

    verification.promote, copies.open_cloned_copy = promote, clone  # type: ignore[assignment]
    if without_fsync:
        os.fsync = lambda _descriptor: None
    _before_changes(photograph)
    verify_once(StoreLayout(root), digest)
    photograph(9999)
