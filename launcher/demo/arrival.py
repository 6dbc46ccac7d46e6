"""The first half of the story: the model's way from absent to verified, or to the error that ends the demo.

Statuses come from the downloader; that bytes were wrong is read from the verifier's records in the store. After a
mismatch the source has one more try, which is awaited, so that the store is left clean.
"""

from __future__ import annotations

import threading
import time

from rich.filesize import decimal

from launcher.demo.follow import command, statuses
from launcher.demo.rejections import Rejections
from launcher.demo.scene import CancelledError, Scene
from launcher.demo.stages import StageClock, failure
from launcher.display import Display, short_path
from shared.errors import IntegrityError
from shared.states import ModelState, ModelStatus
from shared.store.records import RejectedRecord

LAST_TRY_SECONDS = 120.0
REVIVAL_SECONDS = 10.0  # a failure that a `retry` did not change by then is today's


class Arrival:
    """Watched once, by `watch`; make it before the services start, so that it knows which records are old."""

    def __init__(self, scene: Scene, display: Display, cancelled: threading.Event) -> None:
        self.clock = StageClock()
        self._scene = scene
        self._display = display
        self._cancelled = cancelled
        self._rejections = Rejections(scene.layout, scene.pin.sha256)
        self._mismatch: IntegrityError | None = None
        self._mismatch_at = 0.0
        self._revived_at: float | None = None
        self._tries = 1
        self._told = ""

    def watch(self) -> None:
        """Return when the model is verified; raises the R3mesError that ends the demo, or CancelledError."""
        scene = self._scene
        url = scene.wiring.url("downloader")
        for status in statuses(url, scene.pin.sha256, self._cancelled, api_key=scene.api_key):
            for record in self._rejections.new():
                self._tell_rejection(record)
            self.clock.observe(status, time.monotonic())
            self._show(status)
            if status.state is ModelState.VERIFIED:
                self._tell_verified()
                return
            self._end_if_failed(status)
        raise CancelledError

    def _end_if_failed(self, status: ModelStatus) -> None:
        if self._mismatch and (
            status.state is ModelState.FAILED or time.monotonic() - self._mismatch_at > LAST_TRY_SECONDS
        ):
            self._display.pause()
            self._display.say(self._what_is_verified())
            raise self._mismatch
        if self._revived_at is None:
            self._revive(status)
        elif (error := failure(status)) and (
            status.updated_at > self._revived_at or time.time() - self._revived_at > REVIVAL_SECONDS
        ):
            raise error

    def _revive(self, status: ModelStatus) -> None:
        """Undo once, at the beginning, what an earlier run or a person left: a failure that waits, a pause."""
        self._revived_at = 0.0
        verb = {ModelState.FAILED: "retry", ModelState.PAUSED: "resume"}.get(status.state)
        if verb is None:
            return
        self._display.say(f"the model was {status.state} ({status.message or status.reason}): {verb}")
        self._revived_at = time.time()
        command(self._scene.wiring.url("downloader"), self._scene.pin.sha256, verb, api_key=self._scene.api_key)

    def _show(self, status: ModelStatus) -> None:
        total = status.expected_bytes or self._scene.size
        match status.state:
            case ModelState.DOWNLOADING:
                self._display.progress(self._stage("download"), status.received_bytes, total)
                if status.hashed_bytes:
                    self._display.progress(self._stage("verify"), status.hashed_bytes, total)
            case ModelState.VERIFYING:
                self._display.progress(self._stage("download"), total, total)
                self._display.progress(self._stage("verify"), status.hashed_bytes, total)
            case ModelState.VERIFIED if not self.clock.was_there:
                self._display.progress(self._stage("download"), total, total)
                self._display.progress(self._stage("verify"), total, total)
            case ModelState.PAUSED | ModelState.FAILED if status.message != self._told:
                self._told = status.message
                self._display.say(f"{status.state}: {status.message}")
            case _:
                pass

    def _stage(self, name: str) -> str:
        return name if self._tries == 1 else f"{name}, try {self._tries}"

    def _tell_verified(self) -> None:
        self._display.pause()
        pin = self._scene.pin
        where = short_path(self._scene.layout.verified_file(pin.sha256, pin.file_name))
        if self.clock.was_there:
            self._display.say(f"already verified, nothing is downloaded: {where}")
        else:
            fetched = decimal(self._scene.served_bytes())
            self._display.say(f"{fetched} fetched and verified, the digest is the one that the genesis pins: {where}")

    def _tell_rejection(self, record: RejectedRecord) -> None:
        if record.reason != "mismatch":
            return
        self._display.pause()
        self._display.say(
            f"the bytes are not the model that the genesis pins; they were deleted\n"
            f"  expected sha256 {record.sha256}\n  found    sha256 {record.found}"
        )
        self._tries += 1
        if self._mismatch is None:
            self._mismatch_at = time.monotonic()
            self._mismatch = IntegrityError(
                f"the source served wrong bytes: expected sha256 {record.sha256}, found {record.found}",
                next_step=f"nothing was loaded; the records are in {short_path(self._scene.layout.rejected)}",
            )

    def _what_is_verified(self) -> str:
        verified = self._scene.layout.verified
        names = sorted(path.name for path in verified.iterdir() if path.name != ".partial") if verified.is_dir() else []
        return f"{short_path(verified)} holds {', '.join(names) if names else 'nothing'}"
