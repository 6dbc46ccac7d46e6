"""How much of a download may be read now. Pure: documents in, a number of bytes out.

`prefix` counts what was written, durable or not, so it is believed only of the writer that is alive: its bytes are in
the page cache, or will be on disk. Of anybody else only what is durable from byte 0 counts.
"""

from __future__ import annotations

from shared.store.records import Journal, Lease

# A lease is renewed every 5 s; one that did not change for this long belongs to nobody (design §2).
LEASE_EXPIRY_SECONDS = 20.0


def readable_prefix(journal: Journal, live_instance: str | None, file_size: int) -> int:
    """Return how many bytes from 0 may be read; `live_instance` is the living writer's, `file_size` from `fstat`."""
    announced = journal.durable_prefix
    if live_instance is not None and journal.instance == live_instance:
        announced = max(announced, journal.prefix)
    return min(announced, file_size)


class LeaseWatch:
    """Tells whether the writer of one download is alive, by whether its lease changes while we look.

    A lease of this boot is believed at first sight: what its writer wrote is at least in our page cache. One of another
    boot (a power cut, another machine) is believed once it was seen to change.
    """

    def __init__(self, boot_id: str) -> None:
        self._boot_id = boot_id
        self._seen: Lease | None = None
        self._since = 0.0
        self._was_renewed = False

    def live_instance(self, lease: Lease | None, *, now: float) -> str | None:
        """Return the instance of the living writer, None when there is none; `now` is a monotonic clock's."""
        if lease is None:
            self._seen, self._was_renewed = None, False
            return None
        if lease != self._seen:
            self._was_renewed = self._seen is not None
            self._seen, self._since = lease, now
        is_known = self._was_renewed or lease.boot_id == self._boot_id
        return lease.instance if is_known and now - self._since < LEASE_EXPIRY_SECONDS else None
