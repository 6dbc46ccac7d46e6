"""Where a redirect may not lead the process, and what another host is not told."""

from __future__ import annotations

from pathlib import Path

from tests.support.downloader_stand import DATA, DIGEST, PATH, downloader
from tests.support.origin_server import ScriptedOrigin, linked, ranged, redirect


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
