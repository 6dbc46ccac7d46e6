"""The engine's end of a grammar's process: it asks, waits a bounded time, and goes on without it when it must.

Order: `Nursery.open` → `Matcher.opened` until it is true → for each token `propose`, `answer`, and `accept` when the
answer was another choice → `close`. Whatever happens to the process, the caller gets a ConstraintError and goes on.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time

import numpy as np
from numpy.typing import NDArray

from services.miner.grammar.wire import ACCEPT, MAX_REASON_CHARACTERS, NO, PROPOSE, TOKEN, YES, Constraint

OPEN_SECONDS = 15.0  # the first grammar waits for the nursery's vocabulary; nobody else does
ANSWER_SECONDS = 2.0  # how long one answer may hold up the whole step
FREE_SECONDS = 3.0  # what all answers may take together, before the tokens count
SECONDS_A_PIECE = 1e-6  # for each token of the answer and of the vocabulary: about a look at all, which few need
TOO_SLOW = "the grammar takes too much time or memory to match"
# A process that forks has one thread and no device, and an abort in C prints no trace.
ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "HIP_VISIBLE_DEVICES": "",
    "GGML_VK_VISIBLE_DEVICES": "",
    "GGML_NO_BACKTRACE": "1",
}


class ConstraintError(Exception):
    """The answer cannot go on under this constraint; the request is to blame, and its text says why."""


class Matcher:
    """One grammar's process."""

    def __init__(self, connection: socket.socket, vocabulary_size: int) -> None:
        self._connection = connection
        self._size = vocabulary_size
        self._deadline = time.monotonic() + OPEN_SECONDS
        self._left = FREE_SECONDS

    def fileno(self) -> int:
        """Descriptor that is readable once `opened` knows."""
        return self._connection.fileno()

    def opened(self) -> bool:
        """Tell whether the constraint was parsed, without waiting; raises ConstraintError when it was refused."""
        self._connection.settimeout(0)
        try:
            packet = self._receive()
        except BlockingIOError as error:
            if time.monotonic() > self._deadline:
                raise ConstraintError("the grammar was not parsed in time") from error
            return False
        if packet[:1] == NO:
            raise ConstraintError(packet[1:].decode(errors="replace"))
        if packet != YES:
            raise ConstraintError("the grammar takes too much time or memory to parse")
        self._connection.settimeout(ANSWER_SECONDS)
        return True

    def propose(self, token: int) -> None:
        """Ask whether the answer may go on with this token; it does when it may."""
        self._send(PROPOSE, token)

    def answer(self) -> NDArray[np.bool_] | None:
        """Return None when the proposed token was taken, else for each token whether it may be taken instead.

        Raises ConstraintError when the process is gone or too slow.
        """
        started = time.monotonic()
        try:
            packet = self._receive()
        except TimeoutError as error:
            raise ConstraintError(TOO_SLOW) from error
        self._left += SECONDS_A_PIECE * self._size - (time.monotonic() - started)
        if self._left < 0 or not packet:
            raise ConstraintError(TOO_SLOW)
        return (
            None
            if packet[:1] == YES
            else np.unpackbits(np.frombuffer(packet, np.uint8, offset=1), count=self._size).view(np.bool_)
        )

    def accept(self, token: int) -> None:
        """Go on with one of the tokens that may be taken."""
        self._send(ACCEPT, token)

    def close(self) -> None:
        """End the process; a second call does nothing."""
        self._connection.close()

    def _send(self, operation: bytes, token: int) -> None:
        with contextlib.suppress(OSError):  # the next answer says that nobody is there
            self._connection.send(TOKEN.pack(operation, token))

    def _receive(self) -> bytes:
        try:
            return self._connection.recv(max(self._size, MAX_REASON_CHARACTERS * 4) + 1)
        except ConnectionError:
            return b""


class Nursery:
    """Starts the processes of grammars: by a process of its own, started when the first one is needed."""

    def __init__(self, descriptor: int, vocabulary_size: int) -> None:
        self._descriptor = descriptor
        self._size = vocabulary_size
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def open(self, constraint: Constraint) -> Matcher:
        """Begin to parse a constraint, without waiting; raises ConstraintError when no process can be started."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                ours.send(constraint.packed())
                self._hand_over(theirs)
            except OSError as error:
                ours.close()
                raise ConstraintError(f"no process for the grammar: {error}") from error
        return Matcher(ours, self._size)

    def close(self) -> None:
        """End the nursery and with it every grammar's process."""
        if self._control is not None and self._process is not None:
            self._control.close()
            self._process.kill()
            self._process.wait()
            self._control = self._process = None

    def _hand_over(self, connection: socket.socket) -> None:
        if self._control is not None:
            try:
                socket.send_fds(self._control, [b"."], [connection.fileno()])
            except ConnectionError:
                self.close()
            else:
                return
        self._control = self._start()
        socket.send_fds(self._control, [b"."], [connection.fileno()])

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(ANSWER_SECONDS)
        with theirs:
            numbers = map(str, (self._descriptor, theirs.fileno(), os.getpid()))
            self._process = subprocess.Popen(  # noqa: S603  (ourselves; it ends when the socket does)
                [sys.executable, "-m", "services.miner.grammar", *numbers],
                pass_fds=(self._descriptor, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**_without_settings(), **ENVIRONMENT},
            )
        return ours


def _without_settings() -> dict[str, str]:
    """Return the environment without our settings: who reads hostile text needs none, and some are secrets."""
    return {name: value for name, value in os.environ.items() if not name.startswith("R3MES_")}
