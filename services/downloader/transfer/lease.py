"""The one writer of an incoming directory: a lease with a fencing token, since flock is not to be trusted everywhere.

A lease of this very place (host, boot, pid namespace, pid) but another instance is dead, and so is one whose process
this host can see to be gone; any other is dead once it has not changed for LEASE_EXPIRY_SECONDS, by our own clock.
Order: `acquire` → `renew` every LEASE_RENEW_SECONDS, which tells whether we still hold it → `release`.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from services.downloader.limits import LEASE_EXPIRY_SECONDS
from shared.store.records import Lease


def process_exists(pid: int) -> bool:
    """Tell whether a process of this pid namespace exists, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it is there, and not ours to signal
    return True


# What a lease can hold; after it comes 1 again, since the lease of somebody else may say anything.
_LAST_TOKEN = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Identity:
    """Who writes: the place, and `instance`, 32 random hex digits of this process."""

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    instance: str

    @classmethod
    def of_this_process(cls) -> Identity:
        """Take the identity of the running process."""
        return cls(
            host=socket.gethostname()[:255],
            boot_id=_first_line(Path("/proc/sys/kernel/random/boot_id")),
            pid_namespace=_link(Path("/proc/self/ns/pid")),
            pid=os.getpid(),
            instance=secrets.token_hex(16),
        )

    def is_same_place(self, lease: Lease) -> bool:
        """Tell whether the lease's writer ran on this host, since this boot, in this pid namespace."""
        return (lease.host, lease.boot_id, lease.pid_namespace) == (self.host, self.boot_id, self.pid_namespace)


@dataclass(slots=True)
class LeaseKeeper:
    """Takes, renews and gives back leases. `monotonic` and `is_alive` are for tests."""

    identity: Identity
    monotonic: Callable[[], float] = time.monotonic
    is_alive: Callable[[int], bool] = process_exists
    _foreign: dict[Path, tuple[Lease, float]] = field(default_factory=dict)

    def acquire(self, path: Path) -> Lease | None:
        """Take the lease at `path`; return it, or None while another writer may be alive. Raises OSError."""
        current = Lease.read(path)
        if current is not None and not self._is_ours(current) and not self._is_dead(path, current):
            return None
        self._foreign.pop(path, None)
        mine = self._lease(token=1 if current is None else current.token % _LAST_TOKEN + 1)
        mine.write(path)
        return mine if Lease.read(path) == mine else None

    def renew(self, path: Path, held: Lease) -> Lease | None:
        """Renew a held lease; None when another token, or none, is there: whoever gets None stops writing."""
        if not self.still_holds(path, held):
            return None
        renewed = self._lease(token=held.token)
        renewed.write(path)
        return renewed

    def still_holds(self, path: Path, held: Lease) -> bool:
        """Tell whether `path` still carries our instance and token."""
        current = Lease.read(path)
        return current is not None and (current.instance, current.token) == (held.instance, held.token)

    def release(self, path: Path, held: Lease) -> None:
        """Give back a lease that is still ours."""
        if self.still_holds(path, held):
            with suppress(OSError):  # it expires by itself
                path.unlink()

    def _is_ours(self, lease: Lease) -> bool:
        return lease.instance == self.identity.instance

    def _is_dead(self, path: Path, lease: Lease) -> bool:
        if self.identity.is_same_place(lease) and (lease.pid == self.identity.pid or not self.is_alive(lease.pid)):
            return True
        seen, since = self._foreign.get(path, (None, 0.0))
        if seen != lease:
            self._foreign[path] = (lease, self.monotonic())
            return False
        return self.monotonic() - since >= LEASE_EXPIRY_SECONDS

    def _lease(self, token: int) -> Lease:
        who = self.identity
        return Lease(
            host=who.host,
            boot_id=who.boot_id,
            pid_namespace=who.pid_namespace,
            pid=who.pid,
            instance=who.instance,
            token=token,
            renewed_at=time.time(),
        )


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""
