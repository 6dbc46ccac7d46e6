"""What is asked of sources, gateways, names and clocks: real HTTP on loopback."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from launcher.doctor.probes import network, sources
from shared.addresses import AddressPolicy
from tests.support.doctor_host import (
    CID,
    COMMIT,
    DATA,
    FAILED,
    OK,
    SKIPPED,
    TOKEN,
    WARNING,
    DoctorHost,
    only,
    play_hugging_face,
    put_verified,
    ranged,
)
from tests.support.downloader_process import sha256


def test_a_source_that_agrees_with_the_pin_is_asked_for_one_byte_and_the_token_goes_along(
    host: DoctorHost, httpserver: HTTPServer
) -> None:
    subject = host.subject(HF_ENDPOINT=play_hugging_face(httpserver), HF_TOKEN=TOKEN)
    verdict = only(sources.check_source(subject))
    assert verdict.status is OK
    assert (verdict.details["sha256"], verdict.details["revision"]) == (sha256(DATA), COMMIT)
    assert only(sources.check_token(subject)).status is OK
    assert only(sources.check_mirror(subject)).status is OK
    requests = [request for request, _ in httpserver.log]
    assert [request.method for request in requests] == ["HEAD", "GET"]  # once for all checks
    assert [request.headers["Authorization"] for request in requests] == [f"Bearer {TOKEN}"] * 2
    assert requests[1].headers["Range"] == "bytes=0-0"


def test_another_file_upstream_is_3_before_any_byte(host: DoctorHost, httpserver: HTTPServer) -> None:
    endpoint = play_hugging_face(httpserver, data=DATA[:-1] + b"x")
    verdict = only(sources.check_source(host.subject(HF_ENDPOINT=endpoint)))
    assert (verdict.status, verdict.exit_code) == (FAILED, 3)
    assert [request.method for request, _ in httpserver.log] == ["HEAD"]


@pytest.mark.parametrize(("token", "code"), [(TOKEN, 401), (TOKEN, 403), ("", 401)])
def test_a_gated_source_is_4_with_and_without_a_token(
    host: DoctorHost, httpserver: HTTPServer, token: str, code: int
) -> None:
    httpserver.expect_request("/org/tiny/resolve/main/tiny.gguf").respond_with_data(
        "no", status=code, headers={"X-Error-Code": "GatedRepo"}
    )
    subject = host.subject(HF_ENDPOINT=httpserver.url_for("").rstrip("/"), HF_TOKEN=token)
    verdict = only(sources.check_source(subject))
    assert (verdict.status, verdict.exit_code) == (FAILED, 4)
    assert "gated" in verdict.summary
    told = only(sources.check_token(subject))
    assert (told.status, told.exit_code) == (FAILED, 4)
    assert TOKEN not in told.summary


def test_a_source_that_is_away_is_4_until_all_is_verified(host: DoctorHost) -> None:
    assert only(sources.check_source(host.subject())).exit_code == 4
    host.accept()
    put_verified(host.layout)
    verdict = only(sources.check_source(host.subject()))
    assert (verdict.status, verdict.exit_code) == (WARNING, 0)


def test_a_source_that_says_nothing_is_given_up_within_its_bound(host: DoctorHost) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        verdict = only(sources.check_source(host.subject(HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}")))
        assert (verdict.status, verdict.exit_code) == (FAILED, 4)
        assert time.monotonic() - began < 5 * sources.SECONDS


def test_a_private_address_is_asked_only_where_it_is_configured(tmp_path: Path, httpserver: HTTPServer) -> None:
    url = play_hugging_face(httpserver) + "/org/tiny/resolve/main/tiny.gguf"
    host = DoctorHost(tmp_path, download_source=url)
    verdict = only(sources.check_source(host.subject()))
    assert verdict.status is FAILED
    assert "R3MES_ALLOW_HTTP_SOURCES" in verdict.next_step
    assert not httpserver.log
    allowed = f"{httpserver.host}:{httpserver.port}"
    assert only(sources.check_source(host.subject(R3MES_ALLOW_HTTP_SOURCES=allowed))).status is OK
    link_local = host.subject(HF_ENDPOINT="http://169.254.169.254")
    assert only(sources.check_mirror(link_local)).exit_code == 78


def test_each_gateway_is_asked_for_a_byte_of_the_cid_without_the_token(
    host: DoctorHost, httpserver: HTTPServer
) -> None:
    httpserver.expect_request(f"/ipfs/{CID}").respond_with_handler(lambda request: ranged(request, DATA, {}))
    gateways = f"{httpserver.url_for('').rstrip('/')},http://127.0.0.1:1"
    verdicts = sources.check_gateways(host.subject(R3MES_IPFS_GATEWAYS=gateways, HF_TOKEN=TOKEN))
    assert [each.status for each in verdicts] == [OK, WARNING]
    assert all("Authorization" not in request.headers for request, _ in httpserver.log)


def test_a_gateway_with_another_size_is_named(host: DoctorHost, httpserver: HTTPServer) -> None:
    httpserver.expect_request(f"/ipfs/{CID}").respond_with_handler(lambda request: ranged(request, DATA + b"x", {}))
    verdict = only(sources.check_gateways(host.subject(R3MES_IPFS_GATEWAYS=httpserver.url_for("/"))))
    assert verdict.status is WARNING
    assert "pinned are" in verdict.summary


class _Late(BaseHTTPRequestHandler):
    """A server whose clock is two hours late; what it answers does not matter."""

    def date_time_string(self, timestamp: float | None = None) -> str:  # noqa: ARG002  the base class's signature
        return formatdate(time.time() - 7200, usegmt=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as above
        pass


@pytest.fixture
def late_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Late) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_the_clock_is_compared_with_the_source_s(host: DoctorHost, late_server: str) -> None:
    endpoint = late_server
    verdict = only(network.check_clock(host.subject(HF_ENDPOINT=endpoint)))
    assert verdict.status is WARNING
    assert "ahead of the source's clock" in verdict.summary
    assert only(network.check_clock(host.subject(HF_ENDPOINT=endpoint, offline=True))).status is OK


def test_names_lead_to_addresses_that_are_judged() -> None:
    found = network.resolve("localhost", 443, "https", AddressPolicy(frozenset()))
    assert set(found.refused) == set(found.addresses)
    assert found.addresses
    assert network.resolve("a" * 70 + ".example", 443, "https", AddressPolicy(frozenset())).error


def test_proxies_are_those_of_the_environment(host: DoctorHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:2")
    subject = host.subject(HTTP_PROXY="http://127.0.0.1:2")
    verdict = only(network.check_proxies(subject))
    assert verdict.status is OK
    assert verdict.details["used"] == "http://127.0.0.1:2"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert only(network.check_proxies(subject)).details["used"] == ""
    assert only(network.check_routes(subject)).status is not SKIPPED
