"""What a person sees of one model that is fetched: two bars, and a line when something changes."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.filesize import decimal

from launcher.display import Display
from launcher.endings import describe_moment
from shared.states import ModelState, ModelStatus, Source

PLACES = {Source.IMPORT: "a file on this machine", Source.HUGGINGFACE: "Hugging Face", Source.IPFS: "IPFS"}
# What stands for a moment is no news.
_STANDS_SECONDS = 1.5
# A verifier that takes bytes over tells of it several times a second.
_VERIFIER_SECONDS = 30.0


class ModelView:
    """Shown every status in order; the first one says what was there before."""

    def __init__(self, display: Display, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._display = display
        self._monotonic = monotonic
        self._before: ModelStatus | None = None
        self._tries = 1
        self._told: set[str] = set()
        self._words = ("", 0.0)  # what a waiting model says, and since when
        self._hashed = (0, 0.0)  # how many bytes, and since when

    def show(self, status: ModelStatus) -> None:
        """Show one status."""
        if self._before is None:
            self._tell_beginning(status)
        elif self._before.state is ModelState.VERIFYING and _begins_anew(status):
            self._display.pause()
            self._display.say("the verifier did not take the bytes, and deleted them; they are fetched once more")
            self._tries += 1
        match status.state:
            case ModelState.DOWNLOADING:
                self._show_download(status)
            case ModelState.VERIFYING:
                self._show_verification(status)
            case ModelState.VERIFIED if self._before is not None:
                self._bars(status.received_bytes, status.hashed_bytes, status.expected_bytes)
            case ModelState.ABSENT | ModelState.FAILED:
                self._show_waiting(status)
            case _:
                pass
        self._before = status

    def _tell_beginning(self, status: ModelStatus) -> None:
        if status.state is not ModelState.VERIFIED and status.received_bytes and status.expected_bytes:
            done, total = decimal(status.received_bytes), decimal(status.expected_bytes)
            self._display.say(f"{done} of {total} are here already; going on from there")

    def _show_download(self, status: ModelStatus) -> None:
        if status.message:
            self._say_once(status.message)
        if status.source is not None:
            self._say_once(f"{status.model_name}: from {PLACES[status.source]}")
        if status.received_bytes:
            self._bars(status.received_bytes, status.hashed_bytes or None, status.expected_bytes)

    def _show_verification(self, status: ModelStatus) -> None:
        total = status.expected_bytes
        self._bars(total or status.received_bytes, status.hashed_bytes, total)
        hashed, since = self._hashed
        if hashed != status.hashed_bytes or not since:
            self._hashed = (status.hashed_bytes, self._monotonic())
        elif self._monotonic() - since >= _VERIFIER_SECONDS:
            self._say_once("no verifier tells of its work: does it run, and its Redis? `r3mes status` shows more")

    def _show_waiting(self, status: ModelStatus) -> None:
        words = status.message or (status.reason or status.state).value.replace("_", " ")
        said, since = self._words
        if words != said:
            self._words = (words, self._monotonic())
        elif self._monotonic() - since >= _STANDS_SECONDS:
            again = f"; tried again {describe_moment(at)}" if (at := status.next_attempt_at) else ""
            self._say_once(f"{status.model_name}: {words}", again)

    def _say_once(self, line: str, more: str = "") -> None:
        if line not in self._told:
            self._told.add(line)
            self._display.say(line + more)

    def _bars(self, received: int, hashed: int | None, total: int | None) -> None:
        self._display.progress(self._stage("download"), received, total)
        if hashed is not None:
            self._display.progress(self._stage("verify"), hashed, total)

    def _stage(self, name: str) -> str:
        return name if self._tries == 1 else f"{name}, try {self._tries}"


def _begins_anew(status: ModelStatus) -> bool:
    return status.state in {ModelState.ABSENT, ModelState.DOWNLOADING}
