"""How pinned files come, one after the other, and what is done with a verified one; there is no Redis."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.support.downloader_process import MIB, model, promote, sha256
from tests.support.downloader_stand import DATA, DIGEST, PATH, downloader, incoming_is_right
from tests.support.origin_server import Answer, Hold, ScriptedOrigin, linked, ranged, whole
from tests.support.waiting import wait_until


def test_a_pinned_file_comes_without_redis_and_waits_for_its_verdict(home: Path, origin: ScriptedOrigin) -> None:
    with downloader(home, origin) as service:
        status = service.wait_for(DIGEST, "verifying")
        assert (status["received_bytes"], status["expected_bytes"], status["source"]) == (
            len(DATA),
            len(DATA),
            "huggingface",
        )
        assert incoming_is_right(service)
        assert service.get("/api/v1/status")["redis_up"] is False
        wait_until(lambda: service.event("waiting for Redis"), what="the courier to say what it waits for")
        assert service.metric('r3mes_download_bytes_total{source="huggingface"}') == len(DATA)
        service.wait_counted("huggingface")
        assert service.metric('r3mes_download_attempts_total{outcome="complete",source="huggingface"}') == 1
        assert service.metric('r3mes_model_state{model="Tiny",state="verifying"}') == 1
        assert service.metric('r3mes_model_state{model="Tiny",state="downloading"}') == 0
        assert service.metric('r3mes_download_received_bytes{model="Tiny"}') == len(DATA)


def test_a_verified_model_is_linked_and_never_downloaded_again(home: Path, origin: ScriptedOrigin) -> None:
    with downloader(home, origin) as service:
        service.wait_for(DIGEST, "verifying")
        promote(service.layout, DIGEST, "tiny.gguf", DATA)
        status = service.wait_for(DIGEST, "verified")
        assert status["verified_at"] is not None
        assert status["hashed_bytes"] == len(DATA)
        link = service.layout.root / "tiny.gguf"
        wait_until(link.is_symlink, what="the link")
        assert str(link.readlink()) == f"verified/{DIGEST}/tiny.gguf"
        assert link.read_bytes() == DATA
    asked = len(origin.requests)
    with service:
        service.wait_for(DIGEST, "verified")
        assert len(origin.requests) == asked


def test_a_file_verified_under_a_former_name_is_the_verifiers_to_settle(home: Path, origin: ScriptedOrigin) -> None:
    service = downloader(home, origin).start()
    service.wait_for(DIGEST, "verifying")
    promote(service.layout, DIGEST, "tiny.gguf", DATA)
    service.wait_for(DIGEST, "verified")
    service.kill()
    asked = len(origin.requests)
    service.layout.verified_file(DIGEST, "tiny.gguf").rename(service.layout.verified_file(DIGEST, "former.gguf"))
    with service:
        service.wait_for(DIGEST, "verifying")
        assert len(origin.requests) == asked


def test_a_paused_and_a_verifying_model_do_not_hold_up_the_next_one(home: Path, origin: ScriptedOrigin) -> None:
    other = os.urandom(MIB)
    origin.scripts["/org/other/resolve/main/other.gguf"] = ranged(other)
    hold = Hold(after=MIB, for_all=True)
    origin.scripts["/cdn"] = ranged(DATA, hold=hold)
    second = model(
        other,
        model_name="Other",
        file_name="other.gguf",
        download_source="https://huggingface.co/org/other/resolve/main/other.gguf",
    )
    with downloader(home, origin, model(DATA), second) as service:
        assert hold.reached.wait(30)
        assert service.status(sha256(other))["state"] == "absent"
        service.ask(DIGEST, "pause")
        service.wait_for(sha256(other), "verifying")
        hold.release()
        service.ask(DIGEST, "resume")
        service.wait_for(DIGEST, "verifying")


def test_the_staged_genesis_is_fetched_after_the_accepted_one(home: Path, origin: ScriptedOrigin) -> None:
    other = os.urandom(MIB)
    origin.scripts["/next"] = ranged(other)
    staged = model(other, model_name="Next", file_name="next.gguf", download_source="https://huggingface.co/next")
    with downloader(home, origin) as service:
        service.wait_for(DIGEST, "verifying")
        service.layout.next_genesis.write_bytes(json.dumps({"model_config": staged}).encode())
        wait_until(lambda: len(service.get("/api/v1/models")["models"]) == 2, what="the staged model")
        service.wait_for(sha256(other), "verifying")
        assert incoming_is_right(service, other)
        assert service.get("/api/v1/status")["staged_genesis_sha256"] is not None


def test_a_server_without_ranges_is_streamed_and_a_break_starts_from_0(home: Path, origin: ScriptedOrigin) -> None:
    breaks = [True]

    def script(answer: Answer) -> None:
        if answer.seen.method == "GET" and breaks:
            breaks.clear()
            answer.head(200, {"Content-Length": len(DATA)})
            answer.body(DATA[:MIB])
            answer.cut()
        else:
            whole(DATA, headers=linked(DATA))(answer)

    origin.scripts[PATH] = script
    with downloader(home, origin) as service:
        service.wait_for(DIGEST, "verifying")
        assert incoming_is_right(service)
        assert len(origin.asked(PATH)) == 2


def test_a_bandwidth_limit_is_kept(home: Path, origin: ScriptedOrigin) -> None:
    with downloader(home, origin, R3MES_DOWNLOAD_MAX_BYTES_PER_SECOND=str(2 * MIB)) as service:
        service.wait_for(DIGEST, "verifying")
        service.wait_counted("huggingface")
        took = service.metric('r3mes_download_duration_seconds_sum{source="huggingface"}')
        assert took >= len(DATA) / (2 * MIB) - 0.6
