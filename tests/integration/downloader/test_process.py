"""The downloader as a process, without a verifier and without Redis: kills, restarts, operators, order of sources."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from services.downloader.transfer.incoming import read_journal
from shared.store.records import Control
from tests.support.downloader_process import MIB, Downloader, model, promote, reject, sha256
from tests.support.origin_server import (
    Answer,
    Hold,
    ScriptedOrigin,
    linked,
    ranged,
    redirect,
    status,
    whole,
)
from tests.support.waiting import wait_until

DATA = os.urandom(3 * MIB + 17)
DIGEST = sha256(DATA)
# Larger than one sync: a kill in its middle leaves durable bytes behind.
BIG = os.urandom(MIB) * 150
BIG_DIGEST = sha256(BIG)
CID = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"
PATH = "/org/tiny/resolve/main/tiny.gguf"


@pytest.fixture
def origin() -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin() as origin:
        origin.scripts[PATH] = redirect("/cdn", linked(DATA))
        origin.scripts["/cdn"] = ranged(DATA)
        yield origin


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def downloader(home: Path, origin: ScriptedOrigin, *models: dict[str, object], **environ: str) -> Downloader:
    """Return a downloader of `models` (the small file), for which the origin stands in for Hugging Face."""
    return Downloader(home, *(models or (model(DATA),)), environ={"HF_ENDPOINT": origin.url, **environ})


def incoming_is_right(service: Downloader, data: bytes = DATA) -> bool:
    journal = read_journal(service.layout, sha256(data))
    return journal is not None and journal.complete and service.layout.data(sha256(data)).read_bytes() == data


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
        assert service.event("waiting for Redis") is not None
        assert service.metric('r3mes_download_bytes_total{source="huggingface"}') == len(DATA)
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


@pytest.mark.slow
def test_a_killed_download_goes_on_where_its_journal_ends(home: Path, origin: ScriptedOrigin) -> None:
    hold = Hold(after=130 * MIB)
    origin.scripts[PATH] = redirect("/cdn", linked(BIG))
    origin.scripts["/cdn"] = ranged(BIG, hold=hold)
    service = downloader(home, origin, model(BIG)).start()
    assert hold.reached.wait(60)
    wait_until(lambda: _durable(service, BIG_DIGEST) >= 64 * MIB, 30, "durable bytes")
    service.kill()
    kept = _durable(service, BIG_DIGEST)
    assert hold.after - kept <= 64 * MIB
    hold.release()
    asked = len(origin.asked("/cdn"))
    with service:
        service.wait_for(BIG_DIGEST, "verifying", 60)
        assert incoming_is_right(service, BIG)
        assert sum(seen.sent for seen in origin.asked("/cdn")[asked:]) == len(BIG) - kept


def _durable(service: Downloader, digest: str) -> int:
    journal = read_journal(service.layout, digest)
    return journal.durable_prefix if journal else 0


def test_sigterm_saves_what_came_and_ends_with_0_within_seconds(home: Path, origin: ScriptedOrigin) -> None:
    hold = Hold(after=2 * MIB)
    origin.scripts["/cdn"] = ranged(DATA, hold=hold)
    service = downloader(home, origin).start()
    service.wait_received(DIGEST, 2 * MIB)
    with requests.get(f"{service.url}/api/v1/events", stream=True, timeout=10):  # an open stream holds up nobody
        code, seconds = service.terminate()
    assert code == 0
    assert seconds < 5
    assert _durable(service, DIGEST) == 2 * MIB
    assert not service.layout.lease(DIGEST).exists()
    assert service.event("downloader stopped") is not None


def test_pause_resume_cancel_and_retry_are_felt_within_a_moment(home: Path, origin: ScriptedOrigin) -> None:
    hold = Hold(after=2 * MIB)
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
            assert [seen.range for seen in origin.asked("/cdn")[asked:]] == [(2 * MIB, len(DATA))]


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


def test_a_full_disk_tells_how_much_is_missing_and_asks_nobody(home: Path, origin: ScriptedOrigin) -> None:
    pinned = model(DATA, required_disk_space_gb=900_000.0)
    with downloader(home, origin, pinned) as service:
        failed = service.wait_for(DIGEST, "failed")
        assert failed["reason"] == "disk_full"
        missing = int(failed["message"].split("(")[1].split()[0])
        free = service.get("/api/v1/status")["disk"]["free_bytes"]
        assert missing == pytest.approx(900_000 * 10**9 - free, rel=1e-4)
        assert failed["next_attempt_at"] is not None
        assert origin.requests == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs with room for the margin and one copy of the small file, not for two."""
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={257 * MIB + len(DATA)}", "tmpfs", path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def test_a_full_disk_recovers_when_there_is_room(small_disk: Path, origin: ScriptedOrigin) -> None:
    with downloader(small_disk / "home", origin) as service:
        failed = service.wait_for(DIGEST, "failed")
        assert failed["reason"] == "disk_full"
        assert origin.sent() == 0
        subprocess.run(["mount", "-o", f"remount,size={300 * MIB}", small_disk], check=True)
        service.wait_for(DIGEST, "verifying")
        assert incoming_is_right(service)


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(MIB)):
            pass


def test_a_disk_that_fills_up_midway_loses_nothing(small_disk: Path, origin: ScriptedOrigin) -> None:
    """Another process takes all room while the transfer runs; its data is preallocated, documents are not."""
    subprocess.run(["mount", "-o", f"remount,size={300 * MIB}", small_disk], check=True)
    hold = Hold(after=2 * MIB)
    origin.scripts["/cdn"] = ranged(DATA, hold=hold)
    with downloader(small_disk / "home", origin) as service:
        service.wait_received(DIGEST, 2 * MIB)
        ballast = small_disk / "ballast"
        _fill(ballast)
        service.ask(DIGEST, "pause")
        wait_until(lambda: service.status(DIGEST)["state"] == "paused", what="a pause that cannot be written")
        hold.release()
        service.ask(DIGEST, "resume")
        failed = service.wait_for(DIGEST, "failed")
        assert failed["reason"] == "disk_full"
        ballast.unlink()
        service.wait_for(DIGEST, "verifying")
        assert incoming_is_right(service)


def test_a_file_in_the_import_folder_is_adopted_and_nothing_is_downloaded(home: Path, origin: ScriptedOrigin) -> None:
    home.mkdir()
    imports = home / "imports"
    imports.mkdir()
    (imports / "tiny.gguf").write_bytes(DATA)
    with downloader(home, origin, R3MES_IMPORT_DIR=str(imports)) as service:
        assert service.wait_for(DIGEST, "verifying")["source"] == "import"
        assert incoming_is_right(service)
        assert origin.requests == []
        assert (imports / "tiny.gguf").read_bytes() == DATA


def test_a_file_beside_the_store_is_adopted_verified_and_then_replaced_by_the_link(
    home: Path, origin: ScriptedOrigin
) -> None:
    service = downloader(home, origin)
    service.layout.root.mkdir()
    beside = service.layout.root / "tiny.gguf"
    beside.write_bytes(DATA)
    with service:
        assert service.wait_for(DIGEST, "verifying")["source"] == "import"
        assert not beside.is_symlink()
        promote(service.layout, DIGEST, "tiny.gguf", DATA)
        service.wait_for(DIGEST, "verified")
        wait_until(beside.is_symlink, what="the link")
        assert beside.read_bytes() == DATA
        assert origin.requests == []


def test_a_wrong_file_of_the_right_name_is_left_alone_and_named(home: Path, origin: ScriptedOrigin) -> None:
    service = downloader(home, origin)
    service.layout.root.mkdir()
    beside = service.layout.root / "tiny.gguf"
    beside.write_bytes(b"somebody's own file")
    with service:
        assert service.wait_for(DIGEST, "verifying")["source"] == "huggingface"
        promote(service.layout, DIGEST, "tiny.gguf", DATA)
        wait_until(lambda: str(beside) in service.wait_for(DIGEST, "verified")["message"], what="the file to be named")
        assert beside.read_bytes() == b"somebody's own file"
        assert service.event("a local file is not the pinned one and is left alone") is not None


def test_an_address_of_the_cloud_behind_a_redirect_is_refused(home: Path, origin: ScriptedOrigin) -> None:
    origin.scripts[PATH] = redirect("http://169.254.169.254/latest/meta-data", linked(DATA))
    with downloader(home, origin) as service:
        failed = service.wait_for(DIGEST, "failed")
        assert "169.254.169.254" in failed["message"]


def test_a_redirect_to_a_private_listener_makes_no_connection(home: Path, origin: ScriptedOrigin) -> None:
    with ScriptedOrigin() as victim:
        victim.scripts["/x"] = ranged(DATA)
        origin.scripts[PATH] = redirect(f"{victim.url}/x", linked(DATA))
        with downloader(home, origin) as service:
            service.wait_for(DIGEST, "failed")
            assert victim.connections == 0


def test_the_token_is_not_sent_to_the_other_host(home: Path, origin: ScriptedOrigin) -> None:
    with ScriptedOrigin() as cdn:
        cdn.scripts["/x"] = ranged(DATA)
        origin.scripts[PATH] = redirect(f"{cdn.url}/x", linked(DATA))
        with downloader(home, origin, R3MES_ALLOW_HTTP_SOURCES=cdn.host, HF_TOKEN="hf_secret") as service:
            service.wait_for(DIGEST, "verifying")
            assert {seen.headers.get("authorization") for seen in origin.requests} == {"Bearer hf_secret"}
            assert all("authorization" not in seen.headers for seen in cdn.requests)
            assert "hf_secret" not in service.log


def test_a_paused_and_a_verifying_model_do_not_hold_up_the_next_one(home: Path, origin: ScriptedOrigin) -> None:
    other = os.urandom(MIB)
    origin.scripts["/org/other/resolve/main/other.gguf"] = ranged(other)
    hold = Hold(after=MIB)
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
        took = service.metric('r3mes_download_duration_seconds_sum{source="huggingface"}')
        assert took >= len(DATA) / (2 * MIB) - 0.6


def test_a_container_trusts_only_what_was_accepted(home: Path, origin: ScriptedOrigin) -> None:
    host = downloader(home, origin).start()
    host.kill()
    container = Downloader(home, model(DATA, model_name="Changed"), environ={"HF_ENDPOINT": origin.url})
    container.environ["R3MES_STORE_KIND"] = "container"
    (container.layout.root / "store.json").write_text('{"format": 1, "kind": "container"}')
    with container:
        assert container.get("/api/v1/models")["models"][0]["model_name"] == "Tiny"
        container.wait_for(DIGEST, "verifying")
        promote(container.layout, DIGEST, "tiny.gguf", DATA)
        container.wait_for(DIGEST, "verified")
        assert not (container.layout.root / "tiny.gguf").exists()  # no link in a container


BAD_STARTS = [
    pytest.param({}, b'{"model_config": ', "genesis.json", id="malformed"),
    pytest.param({}, None, "genesis.json", id="missing"),
    pytest.param(
        {},
        json.dumps({"model_config": model(DATA, verification_sha256="<sha256-of-the-file>")}).encode(),
        "verification_sha256",
        id="placeholder",
    ),
    pytest.param({"R3MES_CHAIN_RPC": "https://rpc.example"}, b"", "R3MES_CHAIN_RPC", id="chain check"),
    pytest.param({"R3MES_DOWNLOAD_CONECTIONS": "8"}, b"", "R3MES_DOWNLOAD_CONNECTIONS", id="a typo"),
    pytest.param({"R3MES_IPFS_GATEWAYS": "ftp://x"}, b"", "R3MES_IPFS_GATEWAYS", id="a gateway that is none"),
    pytest.param({"R3MES_LISTEN": "192.0.2.1:1"}, b"", "R3MES_LISTEN", id="an address of somebody else"),
]


@pytest.mark.parametrize(("environ", "genesis", "named"), BAD_STARTS)
def test_a_start_that_cannot_succeed_exits_78_and_says_why(
    home: Path, environ: dict[str, str], genesis: bytes | None, named: str
) -> None:
    service = Downloader(home, model(DATA), environ=environ)
    if genesis is None:
        service.genesis.unlink()
    elif genesis:
        service.genesis.write_bytes(genesis)
    assert service.run_to_end() == 78
    assert named in service.log
    assert "Traceback" not in service.log
    assert not service.layout.incoming.exists() or not list(service.layout.incoming.iterdir())


def test_a_second_downloader_on_one_store_does_not_write(home: Path, origin: ScriptedOrigin) -> None:
    hold = Hold(after=MIB)
    origin.scripts["/cdn"] = ranged(DATA, hold=hold)
    with downloader(home, origin) as first:
        service_is_writing = first.wait_received(DIGEST, MIB)
        assert service_is_writing["state"] == "downloading"
        second = downloader(home, origin)
        second.log_file = home / "second.log"
        with second:
            wait_until(lambda: second.event("another downloader holds the lease"), what="the lease to be respected")
            generation = read_journal(first.layout, DIGEST)
            hold.release()
            first.wait_for(DIGEST, "verifying")
            after = read_journal(first.layout, DIGEST)
            assert generation is not None
            assert after is not None
            assert after.generation == generation.generation
            second.wait_for(DIGEST, "verifying")


def test_an_operators_pause_stands_on_the_disk(home: Path, origin: ScriptedOrigin) -> None:
    hold = Hold(after=MIB)
    origin.scripts["/cdn"] = ranged(DATA, hold=hold)
    with downloader(home, origin) as service:
        assert hold.reached.wait(30)
        service.ask(DIGEST, "pause")
        control = Control.read(service.layout.control(DIGEST))
        assert control is not None
        assert control.wish == "paused"


def test_sigint_is_a_stop_like_any_other(home: Path, origin: ScriptedOrigin) -> None:
    service = downloader(home, origin).start()
    assert service._process is not None
    service._process.send_signal(signal.SIGINT)
    assert service._process.wait(15) == 0
