"""Step 1, and the removal of incoming: the downloader's files, which are hostile until hashed.

Everything goes through the descriptor of `incoming/<sha256>`, so nobody can swap the directory under us. Removing is
bound to what was hashed: the name is claimed first, then compared with the inode that was read, then deleted.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from services.verifier.linux import rename_noreplace
from shared.errors import IntegrityError
from shared.store.atomic import HOSTILE_FLAGS, open_dir
from shared.store.layout import StoreLayout
from shared.store.records import Journal, Lease

DATA = "data"
JOURNAL = "journal.json"
LEASE = "lease.json"
_CLAIMED = re.compile(r"\.claimed-[0-9a-f]{32}")


class IncomingRefusedError(IntegrityError):
    """What lies in incoming is not a file that may be read."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """The open data of one download: descriptors of its directory and of `data`, and the `fstat` of the latter."""

    digest: str
    directory: int
    descriptor: int
    status: os.stat_result

    def read_journal(self) -> Journal | None:
        """Return the journal if it is valid and speaks of this very inode."""
        journal = Journal.read(JOURNAL, dir_fd=self.directory)
        if journal is None or journal.sha256 != self.digest or journal.ino != self.status.st_ino:
            return None
        return journal

    def lacks_journal(self) -> bool:
        """Tell whether there is no journal at all, so that this generation is void; a bad one may become good."""
        try:
            os.stat(JOURNAL, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return True
        return False

    def read_complete_journal(self) -> Journal | None:
        """Return the journal if it holds and says that the data is complete."""
        journal = self.read_journal()
        return journal if journal is not None and journal.complete else None

    def read_lease(self) -> Lease | None:
        """Return what the writer says of itself."""
        return Lease.read(LEASE, dir_fd=self.directory)

    def is_still_data(self) -> bool:
        """Tell whether the name still leads to the inode that is open here."""
        return _leads_to(DATA, self.directory, self.status)

    def remove(self, generation: str | None) -> bool:
        """Delete `data` if it still is the inode that was read, and its journal; return whether it was.

        Raises OSError (EPERM, EACCES: a hostile mode), with whatever could not be deleted left where it is.
        """
        claimed = f".claimed-{generation or secrets.token_hex(16)}"
        with suppress(FileNotFoundError):
            rename_noreplace(DATA, claimed, source_dir_fd=self.directory, target_dir_fd=self.directory)
        if _leads_to(claimed, self.directory, self.status):
            _discard(claimed, self.directory, generation)
            return True
        put_back(claimed, self.directory)
        return False


@contextmanager
def open_incoming(layout: StoreLayout, digest: str) -> Iterator[Incoming | None]:
    """Step 1: yield the data of `digest`, or None when there is none.

    Raises IncomingRefusedError for anything but a regular file with one link, reached without following a link.
    """
    try:
        directory = _open_directory(layout, digest)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            descriptor = os.open(DATA, HOSTILE_FLAGS, dir_fd=directory)
        except FileNotFoundError:
            yield None
            return
        except OSError as error:  # a link, a socket, a mode that keeps us out
            raise IncomingRefusedError(f"incoming data of {digest}: {error.strerror}") from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise IncomingRefusedError(f"incoming data of {digest} is not a regular file")
            if status.st_nlink != 1:
                raise IncomingRefusedError(f"incoming data of {digest} has {status.st_nlink} links, wanted one")
            yield Incoming(digest, directory, descriptor, status)
        finally:
            os.close(descriptor)
    finally:
        os.close(directory)


def sweep_claimed(layout: StoreLayout, digest: str) -> int:
    """Undo claims that a crash interrupted: put the data back where it is missing, else delete; return how many.

    Put back, it is judged again: what was verified is removed by step 0, what was rejected is rejected again.
    """
    try:
        with open_dir(layout.incoming_dir(digest)) as directory:
            names = [name for name in os.listdir(directory) if _CLAIMED.fullmatch(name)]  # noqa: PTH208 - a descriptor
            for name in names:
                put_back(name, directory)
    except OSError:
        return 0
    return len(names)


def put_back(claimed: str, directory: int) -> None:
    """Give a claimed file its name back, unless a newer one stands there that the journal names. Raises OSError."""
    try:
        rename_noreplace(claimed, DATA, source_dir_fd=directory, target_dir_fd=directory)
    except FileNotFoundError:
        return
    except FileExistsError:
        # The downloader began anew meanwhile. The journal says which of the two is the download; the other is void.
        status = os.stat(claimed, dir_fd=directory, follow_symlinks=False)
        journal = Journal.read_now(JOURNAL, dir_fd=directory)
        if journal is not None and journal.ino == status.st_ino:
            os.rename(claimed, DATA, src_dir_fd=directory, dst_dir_fd=directory)
        else:
            os.unlink(claimed, dir_fd=directory)


def _discard(claimed: str, directory: int, generation: str | None) -> None:
    journal = Journal.read_now(JOURNAL, dir_fd=directory)  # one that cannot be read now may be a newer generation's
    if journal is None or generation is None or journal.generation == generation:
        with suppress(FileNotFoundError):
            os.unlink(JOURNAL, dir_fd=directory)
    os.unlink(claimed, dir_fd=directory)


def _open_directory(layout: StoreLayout, digest: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open_dir(layout.incoming) as incoming:
            return os.open(digest, flags, dir_fd=incoming)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise IncomingRefusedError(f"incoming directory of {digest}: {error.strerror}") from error


def _leads_to(name: str, directory: int, status: os.stat_result) -> bool:
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino)
