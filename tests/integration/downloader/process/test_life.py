"""Starts, stops and kills of the process, and a second one beside it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import requests

from services.downloader.transfer.incoming import read_journal
from services.downloader.transfer.ranges import covered
from tests.support.downloader_process import MIB, Downloader, model, promote, sha256
from tests.support.downloader_stand import DATA, DIGEST, PATH, downloader, incoming_is_right
from tests.support.origin_server import Hold, ScriptedOrigin, linked, ranged, redirect
from tests.support.waiting import wait_until

# Larger than one sync: a kill in its middle leaves durable bytes behind.
BIG = os.urandom(MIB) * 150
BIG_DIGEST = sha256(BIG)


def _durable(service: Downloader, digest: str) -> int:
    journal = read_journal(service.layout, digest)
    return covered(journal.ranges) if journal else 0


@pytest.mark.slow
def test_a_killed_download_goes_on_where_its_journal_ends(home: Path, origin: ScriptedOrigin) -> None:
    hold = Hold(after=130 * MIB, for_all=True)
    origin.scripts[PATH] = redirect("/cdn", linked(BIG))
    origin.scripts["/cdn"] = ranged(BIG, hold=hold)
    service = downloader(home, origin, model(BIG)).start()
    service.wait_received(BIG_DIGEST, hold.after, 60)  # what left the origin may still be on its way to the disk
    service.kill()
    kept = _durable(service, BIG_DIGEST)
    assert hold.after - kept <= 64 * MIB
    hold.release()
    asked = len(origin.asked("/cdn"))
    with service:
        service.wait_for(BIG_DIGEST, "verifying", 60)
        assert incoming_is_right(service, BIG)
        assert sum(seen.sent for seen in origin.asked("/cdn")[asked:]) == len(BIG) - kept


def test_sigterm_saves_what_came_and_ends_with_0_within_seconds(home: Path, origin: ScriptedOrigin) -> None:
    hold = Hold(after=2 * MIB, for_all=True)
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


@pytest.mark.parametrize("left", [{"lease.json"}, {"data", "journal.json", "lease.json"}], ids=["a lease", "all of it"])
def test_what_a_killed_download_of_a_verified_model_left_is_tidied_up(
    home: Path, origin: ScriptedOrigin, left: set[str]
) -> None:
    hold = Hold(after=2 * MIB, for_all=True)
    origin.scripts["/cdn"] = ranged(DATA, hold=hold)
    service = downloader(home, origin).start()
    service.wait_received(DIGEST, 2 * MIB)
    service.kill()
    for path in service.layout.incoming_dir(DIGEST).iterdir():
        if path.name not in left:
            path.unlink()
    assert {path.name for path in service.layout.incoming_dir(DIGEST).iterdir()} == left
    kept = {name: (service.layout.incoming_dir(DIGEST) / name).read_bytes() for name in left}
    promote(service.layout, DIGEST, "tiny.gguf", DATA, verified_at=time.time() - 3600)
    for name, content in kept.items():
        (service.layout.incoming_dir(DIGEST) / name).write_bytes(content)
    with service:
        service.wait_for(DIGEST, "verified")
        wait_until(lambda: not any(service.layout.incoming_dir(DIGEST).iterdir()), 30, "an empty incoming")


def test_sigint_is_a_stop_like_any_other(home: Path, origin: ScriptedOrigin) -> None:
    service = downloader(home, origin).start()
    assert service._process is not None
    service._process.send_signal(signal.SIGINT)
    assert service._process.wait(15) == 0


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


def test_a_second_downloader_on_one_store_does_not_write(home: Path, origin: ScriptedOrigin) -> None:
    hold = Hold(after=MIB, for_all=True)
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
