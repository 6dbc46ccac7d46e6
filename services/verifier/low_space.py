"""Low-space mode: a copy that incoming makes room for while it grows (design §2 "Space").

Invariant: every byte is in the partial up to `durable`, or in incoming from there. So each COMMIT_BYTES the order is
write → fsync the partial → replace its note, synced → only then punch incoming up to `durable`; and at the next start
`partial_rules` says what a crash left. The partial has a name, `verified/.partial/<sha256>`, which no other process can
open for writing, and is promoted by a rename. Since incoming gives its bytes up, the one pass is the verdict.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from contextlib import suppress

import structlog

from services.verifier.incoming import Incoming
from services.verifier.linux import punch_hole
from services.verifier.partial_rules import PartialFacts, PartialStep, durable_of, is_noted, next_step
from services.verifier.private_copy import OnBytes, PrivateCopy, make_room
from services.verifier.verdict import Pass, PassEnd
from shared.errors import DiskFullError, IntegrityError, NotReadyError
from shared.store.atomic import fsync_dir
from shared.store.layout import StoreLayout
from shared.store.records import Journal, PartialNote

COMMIT_BYTES = 64 * 1024 * 1024
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC

log = structlog.get_logger(__name__)


class BytesLostError(IntegrityError):
    """Bytes of this generation are neither in the partial nor in incoming."""


class LowSpaceCopy(PrivateCopy):
    """A partial under way: its first `durable` bytes are synced, noted and given up by incoming."""

    def __init__(self, descriptor: int, layout: StoreLayout, journal: Journal, durable: int) -> None:
        super().__init__(descriptor, layout.partial_file(journal.sha256))
        self._layout = layout
        self._digest = journal.sha256
        self._generation = journal.generation
        self.durable = durable

    def advance(self, source: int, *, until: int, stop: threading.Event, on_bytes: OnBytes) -> PassEnd | None:
        """Copy and hash on to byte `until`, what was there before a restart first; gives room back on the way.

        Raises DiskFullError when there is no room for the next bytes; the copy is as good as before then.
        """
        noted = min(until, self.durable)
        end = self.hashing.advance(self.descriptor, until=noted, stop=stop, on_bytes=on_bytes)
        if end is PassEnd.EOF:
            raise BytesLostError(f"the partial of {self._digest} is shorter than {self.durable} bytes")
        while end is None and self.hashing.done < until:
            goal = min(until, self.durable + COMMIT_BYTES)
            self._make_room(source, goal)
            end = super().advance(source, until=goal, stop=stop, on_bytes=on_bytes)
            if end is None and self.hashing.done - self.durable >= COMMIT_BYTES:
                self.commit(source)
        return end

    def fill(self, source: int, *, size: int, stop: threading.Event, on_bytes: OnBytes) -> Pass:
        """Copy and hash the rest, at most `size` + 1 bytes in all, giving room back on the way; raises OSError."""
        self.advance(source, until=size, stop=stop, on_bytes=on_bytes)
        return super().fill(source, size=size, stop=stop, on_bytes=on_bytes)

    def commit(self, source: int) -> None:
        """Make what is copied durable, then say so, then let incoming give it up. Raises as `advance` does."""
        os.fsync(self.descriptor)
        note = PartialNote(generation=self._generation, durable=self.hashing.done)
        try:
            note.write(self._layout.partial_note(self._digest))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise DiskFullError("no room for the note of a partial", missing_bytes=1) from error
        self.durable = self.hashing.done
        _give_up(source, self.durable, self._digest)

    def clear(self) -> None:
        """Remove what lies beside the verdict: the note of a promoted partial, both of a rejected one."""
        remove_partial(self._layout, self._digest)

    def close(self) -> None:
        """Leave the partial: it is where the bytes are."""
        os.close(self.descriptor)

    def _make_room(self, source: int, size: int) -> None:
        try:
            make_room(self.descriptor, self._layout, size)
        except DiskFullError:
            if self.hashing.done == self.durable:
                raise
            self.commit(source)  # a smaller step gives some room back
            make_room(self.descriptor, self._layout, size)


class PartialsLock:
    """Held by the one process that makes partials in a store, from its first one to its end.

    Unnamed copies of two verifiers do not meet; two that write one partial would lose bytes.
    """

    def __init__(self, layout: StoreLayout) -> None:
        self._layout = layout
        self._descriptor: int | None = None

    def hold(self) -> None:
        """Take the lock, unless it is held already; raises NotReadyError when another process has it, OSError."""
        if self._descriptor is not None:
            return
        descriptor = os.open(self._layout.partial, os.O_RDONLY | os.O_DIRECTORY | _FLAGS)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise NotReadyError(
                "another verifier makes partials in this store", next_step="run one verifier for one store"
            ) from error
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Let others make partials."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_low_space(layout: StoreLayout, journal: Journal) -> bool:
    """Tell whether this generation is copied in low-space mode: it is announced so, or was begun so. Raises OSError."""
    return journal.mode == "low-space" or is_noted(_read_note(layout, journal.sha256), journal)


def settle_partial(
    layout: StoreLayout,
    digest: str,
    incoming: Incoming | None,
    journal: Journal | None,
    *,
    is_verified: bool = False,
    low_space: bool = False,
) -> PartialStep:
    """Decide what is to be done with what lies in `.partial` for a digest, and do it as far as that is removing.

    `incoming` None: there is no data; `journal`: the valid one of that very data. Raises OSError.
    """
    note = _read_note(layout, digest)
    first_hole = 0
    if incoming is not None and journal is not None:
        first_hole = _first_hole(incoming.descriptor, durable_of(note, journal))
    step = next_step(
        PartialFacts(
            is_verified=is_verified,
            is_gone=incoming is None or incoming.lacks_journal(),
            journal=journal,
            note=note,
            low_space=low_space or (journal is not None and journal.mode == "low-space"),
            partial_size=_size_of_partial(layout, digest),
            first_hole=first_hole,
        )
    )
    if step in {PartialStep.REMOVE, PartialStep.DISCARD, PartialStep.NORMAL, PartialStep.BEGIN}:
        remove_partial(layout, digest)
    return step


def open_low_space(layout: StoreLayout, incoming: Incoming, journal: Journal, step: PartialStep) -> LowSpaceCopy:
    """Return the partial of this generation, resumed or new as `settle_partial` said; only without a verified name.

    Raises BytesLostError when the generation is void, OSError otherwise.
    """
    digest = incoming.digest
    match step:
        case PartialStep.RESUME:
            durable = durable_of(_read_note(layout, digest), journal)
            descriptor = _reopen(layout, digest)
        case PartialStep.BEGIN:
            durable = 0
            descriptor = os.open(layout.partial_file(digest), os.O_CREAT | os.O_EXCL | os.O_RDWR | _FLAGS, 0o600)
        case _:
            raise BytesLostError(f"bytes of {digest} are neither in the partial nor in incoming")
    copy = LowSpaceCopy(descriptor, layout, journal, durable)
    try:
        if step is PartialStep.BEGIN:
            fsync_dir(layout.partial)
        else:
            os.ftruncate(descriptor, durable)
            _give_up(incoming.descriptor, durable, digest)  # a crash may have come before: the room is needed now
    except BaseException:
        copy.close()
        raise
    return copy


def remove_partial(layout: StoreLayout, digest: str) -> bool:
    """Remove note and partial of a digest; return whether there was one. Raises OSError."""
    found = False
    for path in (layout.partial_note(digest), layout.partial_file(digest)):
        with suppress(FileNotFoundError):
            path.unlink()
            found = True
    return found


def _read_note(layout: StoreLayout, digest: str) -> PartialNote | None:
    """Return the note, None when there is none; one that cannot be read now must not make its partial void."""
    return PartialNote.read_now(layout.partial_note(digest))


def _reopen(layout: StoreLayout, digest: str) -> int:
    """Open a partial for writing, also one that a crash in the promotion left with the mode of a verified file."""
    reading = os.open(layout.partial_file(digest), os.O_RDONLY | _FLAGS)
    try:
        os.fchmod(reading, 0o600)
        return os.open(f"/proc/self/fd/{reading}", os.O_RDWR | os.O_CLOEXEC)
    finally:
        os.close(reading)


def _size_of_partial(layout: StoreLayout, digest: str) -> int:
    try:
        return layout.partial_file(digest).lstat().st_size
    except FileNotFoundError:
        return 0


def _first_hole(data: int, start: int) -> int:
    """Return where the data has its first hole at or after `start`; its end counts as one."""
    try:
        return os.lseek(data, start, os.SEEK_HOLE)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return os.fstat(data).st_size  # the data ends before `start`


def _give_up(data: int, length: int, digest: str) -> None:
    """Punch incoming up to `length`. What cannot be punched costs room, not bytes."""
    try:
        # The very inode that is read, whatever the name leads to now.
        writing = os.open(f"/proc/self/fd/{data}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            punch_hole(writing, length)
        finally:
            os.close(writing)
    except OSError as error:
        log.warning("incoming keeps what is copied already", sha256=digest, error=str(error))
