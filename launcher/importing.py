"""How a file that a person already has becomes a verified model, or lies ready for a container stack's verifier.

Order for each file: hash it → find the pin by the digest, in the accepted genesis or the staged one → nothing to do
where that digest is verified → `services.downloader.run_once` copies it into incoming → on a host
`services.verifier.run_once` judges the copy; in a container store the running stack does, and what was made here is
handed over to the downloader. The file itself is only ever read.
"""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from launcher.display import Display
from launcher.handing_over import handed_over
from launcher.hashing import HashedFile, OnBytes, hash_file
from launcher.interrupts import StoppedError
from services.downloader import run_once as adopting
from services.verifier import run_once as verifying
from shared.acceptance.store_root import StoreKind
from shared.errors import (
    DiskFullError,
    IntegrityError,
    NotReadyError,
    R3mesError,
    SourceUnavailableError,
)
from shared.genesis import ModelPin
from shared.states import Source
from shared.store.layout import StoreLayout
from shared.store.records import Journal
from shared.store.trust import Trust, read_trust
from shared.store.verified import has_right_receipt

# Bytes that somebody else left in incoming may be judged first; ours, whose digest is known, are then the second.
_TRIES = 2
_KEPT = "then run the same command again; what is there is kept"


class NotPinnedError(IntegrityError):
    """The file has a digest that no genesis pins; `pinned` are the digests that are pinned under its name."""

    def __init__(self, message: str, sha256: str, pinned: Sequence[str]) -> None:
        super().__init__(message, next_step="fetch the file again, or compare it with `r3mes genesis show`")
        self.sha256 = sha256
        self.pinned = tuple(pinned)


class Result(StrEnum):
    """How a file ended, when nothing was wrong."""

    VERIFIED = "verified"
    ALREADY_VERIFIED = "already_verified"
    PLACED = "placed"  # complete in a container's store, for its verifier


@dataclass(frozen=True, slots=True)
class Imported:
    """`path` is where the bytes are now; `note` what a person should know beside the result, or empty."""

    file: Path
    pin: ModelPin
    result: Result
    path: Path
    note: str = ""


class Importer:
    """Imports into one store, whose genesis is accepted."""

    def __init__(self, layout: StoreLayout, kind: StoreKind, display: Display) -> None:
        self._layout = layout
        self._kind = kind
        self._display = display

    def run(self, file: Path, stop: threading.Event) -> Imported:
        """Import one file; raises R3mesError with the exit code that it means, and StoppedError."""
        hashed = hash_file(file, self._stage("hash", stop))
        pin = find_pin(read_trust(self._layout), file, hashed)
        if self._is_verified(pin):
            if self._kind == "host" and self._has_leftovers(pin):
                self._verify(pin, stop)  # it removes what a crash after the promotion left in incoming
            return self._imported(file, hashed, pin, Result.ALREADY_VERIFIED)
        if self._kind == "container":
            return self._place(file, hashed, pin, stop)
        if self._has_verified_name(pin) and self._verify(pin, stop) is verifying.Outcome.ALREADY_VERIFIED:
            return self._imported(file, hashed, pin, Result.VERIFIED)
        for _ in range(_TRIES):
            self._adopt(file, hashed, pin, stop)
            outcome = self._verify(pin, stop)
            if self._is_verified(pin):
                return self._imported(file, hashed, pin, Result.VERIFIED)
        raise no_verdict(self._layout, pin, hashed, outcome)

    def _place(self, file: Path, hashed: HashedFile, pin: ModelPin, stop: threading.Event) -> Imported:
        """Leave the file complete in incoming, for the verifier of the stack."""
        with handed_over(self._layout, pin.sha256):
            self._adopt(file, hashed, pin, stop)
        journal = Journal.read(self._layout.journal(pin.sha256))
        is_others = journal is not None and journal.source is not Source.IMPORT
        note = "bytes of another source were complete already and are judged first" if is_others else ""
        return Imported(file, pin, Result.PLACED, self._layout.data(pin.sha256), note)

    def _adopt(self, file: Path, hashed: HashedFile, pin: ModelPin, stop: threading.Event) -> None:
        outcome = adopting.adopt_once(
            self._layout,
            pin,
            file,
            hashed=hashed.identity,
            stop=stop,
            on_bytes=lambda done, size: self._display.progress("copy", done, size),
        )
        if isinstance(outcome, adopting.Interrupted) and stop.is_set():
            raise StoppedError
        if error := failure(outcome, self._layout, pin, hashed.size_bytes):
            raise error

    def _verify(self, pin: ModelPin, stop: threading.Event) -> verifying.Outcome:
        """Judge what lies in incoming, twice where a running verifier was quicker with the same bytes."""
        outcome = verifying.Outcome.ERROR
        for _ in range(_TRIES):
            outcome = verifying.verify_once(
                self._layout,
                pin.sha256,
                stop=stop,
                on_bytes=lambda done, size: self._display.progress("verify", done, size),
            )
            if outcome is verifying.Outcome.STOPPED:
                raise StoppedError
            if outcome is not verifying.Outcome.ERROR:
                break
        return outcome

    def _imported(self, file: Path, hashed: HashedFile, pin: ModelPin, result: Result) -> Imported:
        path = self._layout.verified_file(pin.sha256, pin.file_name)
        is_accepted = read_trust(self._layout).genesis.by_digest(pin.sha256) is not None
        has_link = self._kind == "host" and is_accepted  # a staged model gets its link when it is accepted
        note = adopting.link_once(self._layout, pin, hashed.identity) if has_link else ""
        return Imported(file, pin, result, path, note)

    def _is_verified(self, pin: ModelPin) -> bool:
        return has_right_receipt(self._layout, pin.sha256, pin.file_name) is not None

    def _has_verified_name(self, pin: ModelPin) -> bool:
        """Tell whether there is a verified file without a right receipt, maybe under a former name."""
        return any(self._layout.verified_dir(pin.sha256).glob("*.gguf"))

    def _has_leftovers(self, pin: ModelPin) -> bool:
        """Tell whether incoming still holds bytes, under their own name or the one that a verifier claims them by."""
        directory = self._layout.incoming_dir(pin.sha256)
        return self._layout.data(pin.sha256).exists() or any(directory.glob(".claimed-*"))

    def _stage(self, name: str, stop: threading.Event) -> OnBytes:
        def show(done: int, size: int) -> None:
            if stop.is_set():
                raise StoppedError
            self._display.progress(name, done, size)

        return show


def find_pin(trust: Trust, file: Path, hashed: HashedFile) -> ModelPin:
    """Return the pin of the file's digest; raises NotPinnedError, which names what is pinned under the file's name."""
    geneses = [trust.genesis, *([trust.staged] if trust.staged else [])]
    for genesis in geneses:
        if pin := genesis.by_digest(hashed.sha256):
            return pin
    wanted = {
        pin.sha256: pin.model_name
        for genesis in geneses
        for pin in genesis.models
        if pin.file_name.casefold() == hashed.name.casefold()
    }
    lines = [
        f"{file} is not a file that the genesis pins, and is left alone",
        f"its sha256  {hashed.sha256}",
        *(f"pinned      {digest} under this name, for {model}" for digest, model in wanted.items()),
    ]
    raise NotPinnedError("\n  ".join(lines), hashed.sha256, list(wanted))


def failure(outcome: adopting.Outcome, layout: StoreLayout, pin: ModelPin, size: int) -> R3mesError | None:
    """Return what an adoption that did not complete means for a person, None for one that did."""
    match outcome:
        case adopting.Completed():
            return None
        case adopting.LeaseTaken() | adopting.Interrupted():
            return NotReadyError(
                f"another process is fetching {pin.model_name}",
                next_step="wait for it; or pause it, then run the same command again: "
                f"r3mes pause {shlex.quote(pin.model_name)}",
            )
        case adopting.NoRoom(message):
            return no_room(pin, message, adopting.missing_room(layout, pin, size))
        case adopting.SourceFailed(message, reason) if reason is not None:
            return IntegrityError(message, next_step="is the file being written to? does the genesis give its size?")
        case adopting.SourceFailed(message):
            return SourceUnavailableError(message, next_step="check the file and its disk, then run this again")
        case adopting.LocalTrouble(message):
            return R3mesError(message, next_step=f"check the disk and the owner of {layout.root}, {_KEPT}")


def no_room(pin: ModelPin, message: str, missing: int) -> DiskFullError:
    """Return the error of a full disk."""
    return DiskFullError(
        f"no room for {pin.model_name}: {message}", missing_bytes=missing, next_step=f"free some space, {_KEPT}"
    )


def no_verdict(layout: StoreLayout, pin: ModelPin, hashed: HashedFile, outcome: verifying.Outcome) -> R3mesError:
    """Return what it means that the copy is not verified."""
    match outcome:
        case verifying.Outcome.REJECTED:
            return IntegrityError(
                f"the copy of {hashed.name} does not have the digest that the file had, and was deleted",
                next_step=f"suspect the disk or the memory; the records are in {layout.rejected}",
            )
        case verifying.Outcome.REFUSED:
            return NotReadyError(f"{pin.model_name} is not pinned any more", next_step="`r3mes genesis show`")
        case _ if missing := max(0, hashed.size_bytes - free_bytes(layout)):
            return no_room(pin, f"the verified copy needs {missing} bytes more", missing)
        case _:
            return R3mesError(f"there is no verdict on {pin.model_name}", next_step=f"check the disk, {_KEPT}")


def free_bytes(layout: StoreLayout) -> int:
    """Return what the file system of the verified files has free for this user; raises OSError."""
    status = os.statvfs(layout.verified)
    return status.f_bavail * status.f_frsize
