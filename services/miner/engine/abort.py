"""Ending a decode that nobody waits for any more: a flag that llama.cpp looks at between the nodes of its graph.

llama.cpp calls its abort callback some hundred times a step, from a thread of its own. A Python function there takes
the interpreter's lock each time; libc's `strlen` on a string of one character is the same answer (0 or not) for a
load and a compare. The channel's thread hears of a cancel, the main thread begins and ends decodes; the lock keeps a
late cancel from ending the decode after.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterable
from typing import Any

from llama_cpp import llama_cpp

from services.miner.engine.flight import Recorder, Work

llama: Any = llama_cpp


class AbortSwitch:
    """A recorder that passes on what it hears, and raises the flag once all requests of a decode are cancelled."""

    def __init__(self, recorder: Recorder) -> None:
        self.flag = ctypes.create_string_buffer(2)  # one character, and the end that `strlen` looks for
        self._recorder = recorder
        self._lock = threading.Lock()
        self._in_decode = False  # the main thread's own
        self._decoding: set[str] = set()  # requests of the decode that still wait for it
        self._cancelled: set[str] = set()  # heard of, not yet handled by the engine

    def working(self, work: Work, request_ids: Iterable[str] = ()) -> None:
        """Begin a decode for these requests, or end the one before."""
        ids = tuple(request_ids)
        begins = work is Work.DECODING
        if begins or self._in_decode:  # the work between two decodes needs no lock
            with self._lock:
                self._in_decode = begins
                self._decoding = set(ids) - self._cancelled if begins else set()
                self.flag[0] = b"\1" if begins and not self._decoding else b"\0"
        self._recorder.working(work, ids)

    def cancelled(self, request_id: str) -> None:
        """Hear of a cancel before the engine handles it; called by the channel's thread."""
        with self._lock:
            self._cancelled.add(request_id)
            if request_id in self._decoding:
                self._decoding.discard(request_id)
                if not self._decoding:
                    self.flag[0] = b"\1"

    def handled(self, request_id: str) -> None:
        """Forget a cancel that the engine has handled."""
        with self._lock:
            self._cancelled.discard(request_id)


def look_at(context: object, flag: ctypes.Array[ctypes.c_char]) -> None:
    """Let a llama.cpp context abort its decode while `flag` is set; the flag must live as long as the context."""
    strlen = ctypes.cast(ctypes.CDLL(None).strlen, llama.ggml_abort_callback)
    llama.llama_set_abort_callback(context, strlen, ctypes.addressof(flag))
