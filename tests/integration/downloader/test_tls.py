"""The https half of the checked connection: real handshakes with certificates that are right, or of another host."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.downloader.interrupt import Interrupt
from services.downloader.limits import Limits
from services.downloader.sources.base import TransientSourceError
from services.downloader.sources.connection import Gate
from services.downloader.sources.pacing import Pace
from services.downloader.sources.session import Web
from services.downloader.sources.web import Address, WebSource
from shared.addresses import AddressPolicy
from shared.states import Source
from tests.support.origin_server import ScriptedOrigin, linked, ranged

DATA = os.urandom(300_000)
LIMITS = Limits(connect_seconds=5, first_byte_seconds=5, stall_seconds=5)


def _certificate(directory: Path, name: str) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-keyout", key, "-out", certificate),
            *("-subj", f"/CN={name}", "-addext", f"subjectAltName={name}"),
        ],
        check=True,
        capture_output=True,
    )
    return key, certificate


def _origin(directory: Path, name: str) -> Iterator[ScriptedOrigin]:
    key, certificate = _certificate(directory, name)
    with ScriptedOrigin() as origin:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        origin._server.socket = context.wrap_socket(
            origin._server.socket, server_side=True, do_handshake_on_connect=False
        )
        origin.scripts["/file"] = ranged(DATA, headers=linked(DATA))
        yield origin


@pytest.fixture
def right(tmp_path: Path) -> Iterator[ScriptedOrigin]:
    yield from _origin(tmp_path, "IP:127.0.0.1")


@pytest.fixture
def of_another_host(tmp_path: Path) -> Iterator[ScriptedOrigin]:
    yield from _origin(tmp_path, "DNS:another.example")


def _fetch(origin: ScriptedOrigin, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    policy = AddressPolicy.from_environ({"R3MES_ALLOW_HTTP_SOURCES": origin.host})
    web = Web(Gate(policy, Interrupt(), LIMITS), LIMITS, Pace(None))
    source = WebSource(Source.HUGGINGFACE, Address(f"https://{origin.host}/file"), web, judge=lambda _: None)
    try:
        size = source.preflight().size
        with source.fetch(0, len(DATA), size, len(DATA)) as body:
            return b"".join(bytes(chunk) for chunk in body.chunks)
    finally:
        web.close()


def test_a_file_comes_over_tls(right: ScriptedOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _fetch(right, tmp_path / "certificate.pem", monkeypatch) == DATA


def test_a_certificate_of_another_host_is_refused(
    of_another_host: ScriptedOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TransientSourceError, match="certificate"):
        _fetch(of_another_host, tmp_path / "certificate.pem", monkeypatch)
    assert of_another_host.requests == []


def test_a_certificate_that_nobody_vouches_for_is_refused(
    right: ScriptedOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    _, stranger = _certificate(other, "IP:127.0.0.1")
    with pytest.raises(TransientSourceError, match="certificate"):
        _fetch(right, stranger, monkeypatch)
    assert right.requests == []
