"""Stopping a transfer from another thread within a moment, also while it waits for the network.

The first reason stands. Sockets that are watched are shut down, which wakes whoever reads from them. A transfer has one
interrupt, each of its connections a child of it.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from enum import StrEnum
from weakref import WeakSet

from shared.errors import NotReadyError


class Reason(StrEnum):
    """Why a transfer stops before its end."""

    OPERATOR = "operator"
    NOT_PINNED = "not pinned any more"
    VETOED = "the chain vetoes it"
    LEASE_LOST = "another writer took the lease"
    VOID = "its data is not there any more"
    QUIET = "no new byte for too long"
    SLOW = "too few bytes for too long"
    DONE = "nothing left for this connection"
    SHUTDOWN = "shutdown"


class InterruptedTransferError(NotReadyError):
    """The transfer was told to stop; what is durable stays."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"stopped: {reason}")
        self.reason = reason


class Interrupt:
    """Told once, by any thread; asked often, by the transfer."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._children: list[Interrupt] = []
        self.reason: Reason | None = None

    def tell(self, reason: Reason) -> None:
        """Stop the transfer; a second reason changes nothing."""
        with self._lock:
            if self.reason is None:
                self.reason = reason
            self._event.set()
            children = tuple(self._children)
        self.cut()
        for child in children:
            child.tell(reason)

    def cut(self) -> None:
        """Shut down the sockets that are watched, and nothing else: whoever reads from one finds it at its end."""
        with self._lock:
            for sock in tuple(self._sockets):
                _shut_down(sock)

    def child(self) -> Interrupt:
        """Return an interrupt that is told whatever this one is told, and may be told alone."""
        child = Interrupt()
        with self._lock:
            self._children.append(child)
            reason = self.reason
        if reason is not None:
            child.tell(reason)
        return child

    def watch(self, sock: socket.socket) -> None:
        """Shut this socket down when told, at once if that was before."""
        with self._lock:
            self._sockets.add(sock)
            if self._event.is_set():
                _shut_down(sock)

    def check(self) -> None:
        """Raise InterruptedTransferError once told."""
        if self.reason is not None:
            raise InterruptedTransferError(self.reason)

    def wait(self, seconds: float) -> None:
        """Wait, and raise InterruptedTransferError as soon as told."""
        self._event.wait(seconds)
        self.check()


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):  # not connected yet, or closed already
        sock.shutdown(socket.SHUT_RDWR)
