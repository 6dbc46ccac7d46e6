"""What an operator asks for over the API is felt at once and stands on the disk."""

from __future__ import annotations

from pathlib import Path

from shared.store.records import Control
from tests.support.downloader_process import MIB
from tests.support.downloader_stand import DATA, DIGEST, downloader
from tests.support.origin_server import Hold, ScriptedOrigin, ranged
from tests.support.waiting import wait_until


def test_pause_resume_cancel_and_retry_are_felt_within_a_moment(home: Path, origin: ScriptedOrigin) -> None:
    hold = Hold(after=2 * MIB, for_all=True)
    origin.scripts["/cdn"] = ranged(DATA, hold=hold)
    with downloader(home, origin) as service:
        service.wait_received(DIGEST, 2 * MIB)
        answer = service.ask(DIGEST, "pause")
        assert (answer.status_code, answer.json()["state"]) == (202, "paused")
        wait_until(lambda: not service.layout.lease(DIGEST).exists(), 2, "the transfer to end")
        assert service.status(DIGEST)["received_bytes"] == 2 * MIB

        service.kill()
        with service:  # a restart does not resume what was paused
            service.wait_for(DIGEST, "paused")
            assert service.ask(DIGEST, "cancel").json()["reason"] == "cancelled"
            assert service.layout.data(DIGEST).exists()
            hold.release()
            asked = len(origin.asked("/cdn"))
            assert service.ask(DIGEST, "resume").status_code == 202
            service.wait_for(DIGEST, "verifying")
            left = len(DATA) - 2 * MIB
            wait_until(lambda: sum(seen.sent for seen in origin.asked("/cdn")[asked:]) == left, what="what was missing")


def test_an_operators_pause_stands_on_the_disk(home: Path, origin: ScriptedOrigin) -> None:
    hold = Hold(after=MIB, for_all=True)
    origin.scripts["/cdn"] = ranged(DATA, hold=hold)
    with downloader(home, origin) as service:
        assert hold.reached.wait(30)
        service.ask(DIGEST, "pause")
        control = Control.read(service.layout.control(DIGEST))
        assert control is not None
        assert control.wish == "paused"
