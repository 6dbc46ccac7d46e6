"""The order of sources: which is asked next, after what, and when nobody is asked any more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.downloader_process import MIB, model, reject, sha256
from tests.support.downloader_stand import DATA, DIGEST, PATH, downloader, incoming_is_right
from tests.support.origin_server import Hold, ScriptedOrigin, linked, ranged, redirect, status
from tests.support.waiting import wait_until

CID = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"


def test_wrong_bytes_cost_one_more_try_then_it_is_the_next_sources_turn(home: Path, origin: ScriptedOrigin) -> None:
    wrong = bytes([DATA[0] ^ 1]) + DATA[1:]
    origin.scripts["/cdn"] = ranged(wrong)
    origin.scripts[f"/ipfs/{CID}"] = ranged(DATA)
    pinned = model(DATA, ipfs_fallback_hash=CID)
    with downloader(home, origin, pinned, R3MES_IPFS_GATEWAYS=origin.url) as service:
        genesis = service.get("/api/v1/status")["genesis_sha256"]
        for _ in range(2):
            record = reject(service.layout, DIGEST, genesis)
            assert (record.source, record.found) == ("huggingface", sha256(wrong))
        wait_until(lambda: service.status(DIGEST)["source"] == "ipfs", what="IPFS to take over")
        service.wait_for(DIGEST, "verifying")
        assert incoming_is_right(service)
        assert service.metric("r3mes_download_fallbacks_total") == 1
        assert origin.sent("/cdn") == 2 * len(DATA)


def test_two_sources_with_one_wrong_digest_stop_everything_until_a_retry(home: Path, origin: ScriptedOrigin) -> None:
    wrong = bytes([DATA[0] ^ 1]) + DATA[1:]
    origin.scripts["/cdn"] = ranged(wrong)
    origin.scripts[f"/ipfs/{CID}"] = ranged(wrong)
    pinned = model(DATA, ipfs_fallback_hash=CID)
    with downloader(home, origin, pinned, R3MES_IPFS_GATEWAYS=origin.url) as service:
        genesis = service.get("/api/v1/status")["genesis_sha256"]
        sources = [reject(service.layout, DIGEST, genesis).source for _ in range(3)]
        assert sources == ["huggingface", "huggingface", "ipfs"]
        failed = service.wait_for(DIGEST, "failed")
        assert (failed["reason"], failed["next_attempt_at"]) == ("hash_mismatch", None)
        asked = len(origin.requests)
        service.kill()
    with service:
        assert service.wait_for(DIGEST, "failed")["reason"] == "hash_mismatch"
        assert service.ask(DIGEST, "resume").json()["reason"] == "hash_mismatch"
        assert len(origin.requests) == asked
        origin.scripts["/cdn"] = ranged(DATA)
        service.ask(DIGEST, "retry")
        service.wait_for(DIGEST, "verifying")
        assert incoming_is_right(service)


def test_ipfs_takes_over_where_hugging_face_has_no_such_file(home: Path, origin: ScriptedOrigin) -> None:
    origin.scripts[PATH] = status(404)
    origin.scripts[f"/ipfs/{CID}"] = ranged(DATA)
    pinned = model(DATA, ipfs_fallback_hash=CID)
    with downloader(home, origin, pinned, R3MES_IPFS_GATEWAYS=f"{origin.url}/") as service:
        assert service.wait_for(DIGEST, "verifying")["source"] == "ipfs"
        assert incoming_is_right(service)
        assert service.metric("r3mes_download_fallbacks_total") == 1


def test_upstream_that_changed_is_named_before_any_byte(home: Path, origin: ScriptedOrigin) -> None:
    origin.scripts[PATH] = redirect("/cdn", linked(b"another file", **{"X-Linked-Size": len(DATA)}))
    with downloader(home, origin) as service:
        failed = service.wait_for(DIGEST, "failed")
        assert failed["reason"] == "upstream_mismatch"
        assert failed["next_attempt_at"] is not None
        assert sha256(b"another file") in failed["message"]
        assert origin.sent() == 0
        assert origin.asked("/cdn") == []


def test_when_all_sources_fail_the_time_of_the_next_attempt_outlives_a_restart(
    home: Path, origin: ScriptedOrigin
) -> None:
    origin.scripts[PATH] = status(404)
    with downloader(home, origin) as service:
        failed = service.wait_for(DIGEST, "failed")
        assert failed["reason"] == "source_unavailable"
        assert "404" in failed["message"]
        service.kill()
    asked = len(origin.requests)
    with service:
        assert service.wait_for(DIGEST, "failed")["next_attempt_at"] == failed["next_attempt_at"]
        assert len(origin.requests) == asked
        service.ask(DIGEST, "download")
        wait_until(lambda: len(origin.requests) > asked, what="a new attempt")


@pytest.mark.slow
def test_a_source_that_gives_nothing_does_not_hold_up_the_next_model(home: Path, origin: ScriptedOrigin) -> None:
    other = os.urandom(MIB)
    hold = Hold(after=2 * MIB, for_all=True)
    origin.scripts["/cdn"] = ranged(DATA, hold=hold)
    origin.scripts["/org/other/resolve/main/other.gguf"] = ranged(other)
    url = "https://huggingface.co/org/other/resolve/main/other.gguf"
    second = model(other, model_name="Other", file_name="other.gguf", download_source=url)
    with downloader(home, origin, model(DATA), second) as service:
        assert hold.reached.wait(30)
        assert service.status(sha256(other))["state"] == "absent"  # one after the other, as a rule
        service.wait_for(sha256(other), "verifying", 60)
        assert service.status(DIGEST)["state"] == "downloading"
        hold.release()
        service.wait_for(DIGEST, "verifying", 60)
        assert incoming_is_right(service)
        assert incoming_is_right(service, other)
