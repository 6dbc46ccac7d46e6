"""How a process of threads learns that it should stop, and that it is gone in time whatever hangs in a system call."""

from __future__ import annotations

import os
import signal
import threading

from shared.errors import ExitCode


def stop_on_signals(stop: threading.Event, *, within_seconds: float) -> threading.Event:
    """Set `stop` at SIGTERM or SIGINT, and exit 0 that long afterwards unless the returned event has been set.

    To be called by the main thread before it starts others. One thread waits for the signals, since a handler in the
    main thread could meet a lock that it holds.
    """
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    done = threading.Event()

    def wait() -> None:
        signal.sigwait(signals)
        stop.set()
        if not done.wait(within_seconds):
            os._exit(ExitCode.OK)

    threading.Thread(target=wait, name="signals", daemon=True).start()
    return done
