"""What the demo tells, in the order in which it happens: download, verification, load, question, answer, table.

It watches and asks over HTTP, as any client does, and reads the store; the processes are the supervisor's. When a
service goes away in between, the story waits for it to come back and goes on.
"""

from __future__ import annotations

import threading
import time

from launcher.answer import Answer, AnswerTimes, write_answer
from launcher.demo.arrival import Arrival
from launcher.demo.follow import readiness
from launcher.demo.scene import CancelledError, Scene
from launcher.demo.table import show_table, stage_rows
from launcher.display import Display, short_path
from shared.errors import EngineError, NotReadyError

POLL_SECONDS = 0.1
LOAD_SECONDS = 600.0  # a large model from a slow disk
TELL_AGAIN_SECONDS = 15.0
MOST_QUESTIONS = 5  # a miner that is killed in the middle of an answer is asked again


class Story:
    """Told once, by `tell`, in a thread of its own; `cancelled` ends it early."""

    def __init__(self, scene: Scene, display: Display, cancelled: threading.Event) -> None:
        self._scene = scene
        self._display = display
        self._cancelled = cancelled
        self._arrival = Arrival(scene, display, cancelled)

    def tell(self) -> None:
        """Tell everything; raises the R3mesError that ends the demo, or CancelledError."""
        try:
            self._arrival.watch()
            began = time.monotonic()
            self._display.say("loading the model")
            self._wait_until_ready()
            load_seconds = time.monotonic() - began
            times = self._ask()
            self._show_table(load_seconds, times)
        finally:
            self._display.pause()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + LOAD_SECONDS
        tell_at = time.monotonic() + TELL_AGAIN_SECONDS
        while True:
            is_ready, reason = readiness(self._scene.wiring.url("miner"))
            if is_ready:
                return
            now = time.monotonic()
            if now > deadline:
                log_file = self._scene.places.logs / "miner.log"
                raise NotReadyError(f"the miner is not ready: {reason}", next_step=f"read {log_file}")
            if now > tell_at:
                tell_at = now + TELL_AGAIN_SECONDS
                self._display.say(f"still waiting for the miner: {reason}")
            if self._cancelled.wait(POLL_SECONDS):
                raise CancelledError

    def _ask(self) -> AnswerTimes:
        for attempt in range(1, MOST_QUESTIONS + 1):
            self._display.say(f"question: {self._scene.question.text}")
            try:
                return self._stream_answer()
            except (NotReadyError, EngineError) as error:
                if self._cancelled.is_set():
                    raise CancelledError from error
                if attempt == MOST_QUESTIONS:
                    raise
                self._display.say(f"{error.message}; asking again")
            self._wait_until_ready()
        raise AssertionError("unreachable")

    def _stream_answer(self) -> AnswerTimes:
        scene = self._scene
        answer = Answer(scene.wiring.url("miner"), scene.question, api_key=scene.api_key)
        write_answer(answer, is_wanted=lambda: not self._cancelled.is_set())
        if self._cancelled.is_set():
            raise CancelledError
        return answer.times

    def _show_table(self, load_seconds: float, times: AnswerTimes) -> None:
        scene, pin = self._scene, self._scene.pin
        wiring = scene.wiring
        rows = [
            ("model", pin.model_name),
            ("file", short_path(scene.layout.verified_file(pin.sha256, pin.file_name))),
            ("size", f"{scene.size:,} bytes"),
            ("sha256", pin.sha256),
            *stage_rows(self._arrival.clock, scene.served_bytes(), load_seconds, times),
            ("chat", f"{wiring.url('miner')}/v1/chat/completions"),
            ("status page", f"{wiring.url('downloader')}/"),
            ("metrics", ", ".join(f"{wiring.url(role)}/metrics" for role in wiring.ports)),
            ("logs", short_path(scene.places.logs)),
        ]
        show_table(rows)
