"""The copies under way: at most one a digest, begun by its follower or by its job, finished by its job.

Whoever touches a digest here holds `Verifier.lock_of` it. Nothing of this outlives the process but a low-space partial.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from services.verifier.cloned_copy import ClonedCopy, open_cloned_copy
from services.verifier.incoming import Incoming
from services.verifier.low_space import LowSpaceCopy, PartialsLock, is_low_space, open_low_space, settle_partial
from services.verifier.partial_rules import PartialStep
from services.verifier.private_copy import OnBytes, PrivateCopy, open_private_copy
from services.verifier.progress import Observer
from shared.errors import DiskFullError
from shared.store.layout import StoreLayout
from shared.store.records import Journal


@dataclass(slots=True)
class Begun:
    """A copy under way of one generation of incoming data, which others are told of as long as it is."""

    copy: PrivateCopy
    generation: str
    identity: tuple[int, int]
    on_bytes: OnBytes
    _watch: ExitStack

    def fits(self, incoming: Incoming, journal: Journal) -> bool:
        """Tell whether it was begun from this very file, as this generation of it, and makes room if it has to."""
        return (
            self.generation == journal.generation
            and self.identity == _identity(incoming)
            and (journal.mode == "normal" or isinstance(self.copy, LowSpaceCopy))
        )

    def close(self) -> None:
        """End it; what is not promoted is gone, but for a low-space partial."""
        self.copy.close()
        self._watch.close()


class Copies:
    """Begins copies in the mode that is called for, and keeps those that followers began."""

    def __init__(self, layout: StoreLayout, observer: Observer) -> None:
        self._layout = layout
        self._observer = observer
        self._begun: dict[str, Begun] = {}
        self.partials = PartialsLock(layout)

    def begin(self, incoming: Incoming, journal: Journal, size: int, *, followed: bool) -> Begun:
        """Begin a copy at byte 0, or go on with a low-space partial.

        A follower leaves it to the job to turn to low-space mode for want of room. Raises DiskFullError,
        BytesLostError when the generation is void, NotReadyError when the partials are another process's, OSError.
        """
        if is_low_space(self._layout, journal):
            self.partials.hold()
        step = settle_partial(self._layout, incoming.digest, incoming, journal)
        if step is PartialStep.NORMAL:
            try:
                return self._begun_with(self._open_normal(incoming, size, followed=followed), incoming, journal, size)
            except DiskFullError:
                if followed:
                    raise
            self.partials.hold()
            step = settle_partial(self._layout, incoming.digest, incoming, journal, low_space=True)
        return self._begun_with(open_low_space(self._layout, incoming, journal, step), incoming, journal, size)

    def keep(self, digest: str, begun: Begun) -> None:
        """Keep a copy for the next who takes it."""
        self._begun[digest] = begun

    def get(self, digest: str) -> Begun | None:
        """Return the copy that is kept, if there is one."""
        return self._begun.get(digest)

    def take(self, incoming: Incoming, journal: Journal) -> Begun | None:
        """Hand over the copy of this very file and generation; any other of the digest is dropped."""
        begun = self._begun.pop(incoming.digest, None)
        if begun is not None and not begun.fits(incoming, journal):
            begun.close()
            return None
        return begun

    def end(self, digest: str, begun: Begun) -> None:
        """End a copy that was taken, unless it was given back to be kept."""
        if self.get(digest) is not begun:
            begun.close()

    def drop(self, digest: str) -> None:
        """End the copy of a digest, if there is one."""
        begun = self._begun.pop(digest, None)
        if begun is not None:
            begun.close()

    def digests(self) -> set[str]:
        """Return the digests of which a copy is kept."""
        return set(self._begun)

    def _open_normal(self, incoming: Incoming, size: int, *, followed: bool) -> PrivateCopy:
        """Clone where that can be had, else make room for a copy that is written."""
        cloned = open_cloned_copy(
            self._layout,
            incoming.digest,
            incoming.descriptor,
            size,
            is_complete=not followed,
            may_reject=not followed,
        )
        return cloned or open_private_copy(self._layout, incoming.digest, size, may_reject=not followed)

    def _begun_with(self, copy: PrivateCopy, incoming: Incoming, journal: Journal, size: int) -> Begun:
        watch = ExitStack()
        # A low-space partial has a name, by which the downloader finds its size; a clone occupies nothing of its own.
        unnamed = 0 if isinstance(copy, LowSpaceCopy | ClonedCopy) else size
        on_bytes = watch.enter_context(
            self._observer.watch_copy(incoming.digest, journal.generation, size, unnamed_bytes=unnamed)
        )
        return Begun(copy, journal.generation, _identity(incoming), on_bytes, watch)


def _identity(incoming: Incoming) -> tuple[int, int]:
    return incoming.status.st_dev, incoming.status.st_ino
