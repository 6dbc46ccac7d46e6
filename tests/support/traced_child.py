"""A child that does turns on one digest of a store, each when it is told to, so that strace can be attached before.

Forked from a server that has everything imported: a child and its strace cost about 10 ms. What it says and the
traceback of whatever escapes it are in its log, outside the store.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

from services.verifier.follower import Follower
from services.verifier.housekeeping import recheck, sweep_orphans
from services.verifier.verification import Verifier
from shared.store.layout import StoreLayout
from tests.support import crash_child
from tests.support.system_calls import traced
from tests.support.verifier_stand import make_verifier
from tests.support.verifier_store import Store

Turn = Callable[[Verifier, str], str]
"""What a child does in its first turn; returns how it ended. The second one is a verification, always."""

KILLED = crash_child.KILLED
TURN_SECONDS = 60.0
_GO = signal.SIGUSR1
# Starting one child asks after all others, and two threads that read one's exit status at a time both get it wrong.
_PROCESSES = threading.Lock()
_PR_SET_PDEATHSIG, _PR_SET_PTRACER = 1, 0x59616D61

context = crash_child.context
context.set_forkserver_preload([crash_child.__name__, __name__])


def verify(verifier: Verifier, digest: str) -> str:
    return verifier.verify(digest).value


def follow(verifier: Verifier, digest: str) -> str:
    """Follow a download as far as it is announced."""
    steps = Follower(verifier)
    while steps.step(digest):
        pass
    return "followed"


def start(verifier: Verifier, digest: str) -> str:
    """Sweep, look at what is verified, verify: what a process does first."""
    sweep_orphans(verifier)
    recheck(verifier)
    return verify(verifier, digest)


class TracedChild:
    """Its turns, one after the other; whatever is left of it ends with the block."""

    def __init__(self, store: Store, digest: str, first: Turn, log: Path, *, without_tmpfile: bool = False) -> None:
        self._log = log
        self._ours, theirs = context.Pipe()
        arguments = (store.layout.root, digest, first, log, without_tmpfile, theirs)
        self.process = context.Process(target=_live, args=arguments)
        with _PROCESSES:
            self.process.start()
        theirs.close()
        assert self._answer() == "ready", self.log()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        with _PROCESSES:
            self.process.kill()
            self.process.join()
            self.process.close()
        self._ours.close()

    def turn(self, trace: Path | None = None, inject: str = "") -> str | None:
        """Let it do its next turn, traced or not; return how that ended, None when the child did not live to say."""
        assert self.process.pid is not None
        if trace is None:
            os.kill(self.process.pid, _GO)
            return self._answer()
        with traced(self.process.pid, trace, inject) as let_go:
            os.kill(self.process.pid, _GO)
            answer = self._answer()
            if answer is not None:
                let_go()
        return answer

    def open_in_store(self) -> list[str]:
        """After both turns: which files of the store it still has open."""
        assert self.process.pid is not None
        os.kill(self.process.pid, _GO)
        answer = self._answer()
        return [] if not answer else answer.splitlines()

    def exitcode(self) -> int | None:
        with _PROCESSES:
            self.process.join(TURN_SECONDS)
            return self.process.exitcode

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def _answer(self) -> str | None:
        assert self._ours.poll(TURN_SECONDS), f"no answer from the child; it said: {self.log()[-2000:]}"
        try:
            return self._ours.recv_bytes().decode()
        except EOFError:
            return None


def _live(root: Path, digest: str, first: Turn, log: Path, without_tmpfile: bool, answers: Connection) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    _let_itself_be_traced()
    signal.pthread_sigmask(signal.SIG_BLOCK, {_GO})
    crash_child._take_small_steps()
    if without_tmpfile:
        crash_child._refuse_tmpfile()
    verifier = make_verifier(Store(StoreLayout(root)))
    answers.send_bytes(b"ready")
    for turn in (first, verify):
        _wait_for_go()
        answers.send_bytes(turn(verifier, digest).encode())
    _wait_for_go()
    verifier.copies.drop(digest)
    verifier.copies.partials.release()
    answers.send_bytes("\n".join(_open_below(root)).encode())


def _wait_for_go() -> None:
    # Not by reading: that would be one more call of those that are counted, or not, as strace comes before or after.
    if signal.sigtimedwait({_GO}, TURN_SECONDS) is None:
        os._exit(9)


def _let_itself_be_traced() -> None:
    """Also where only a parent may trace (Yama), and die with the server that it was forked from."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_PTRACER, ctypes.c_ulong(-1))
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _open_below(root: Path) -> list[str]:
    leads = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            leads.append(str(entry.readlink()))
        except FileNotFoundError:  # the listing's own
            continue
    return [path for path in leads if path.startswith(f"{root}/")]
