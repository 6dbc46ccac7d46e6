"""The HTTP API from outside: shapes, errors, keys, origins, event streams, metrics."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest
import requests

from shared.states import ModelStatus
from tests.support.downloader_process import MIB, Downloader, model, sha256
from tests.support.geneses import OTHER_DIGEST
from tests.support.origin_server import Hold, ScriptedOrigin, linked, ranged
from tests.support.waiting import wait_until

DATA = random.Random(12).randbytes(2 * MIB)  # noqa: S311 - the same each time, since tests bear its digest in their names
DIGEST = sha256(DATA)
PATH = "/org/tiny/resolve/main/tiny.gguf"
KEY = "a-key-of-the-tests"
STATUS_FIELDS = set(ModelStatus.__dataclass_fields__)


@pytest.fixture(scope="module")
def origin() -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin() as origin:
        yield origin


@pytest.fixture(scope="module")
def hold(origin: ScriptedOrigin) -> Hold:
    """The download of these tests stops in its middle, so that nothing moves by itself."""
    hold = Hold(after=MIB, for_all=True)
    origin.scripts[PATH] = ranged(DATA, hold=hold, headers=linked(DATA))
    return hold


@pytest.fixture(scope="module")
def service(origin: ScriptedOrigin, hold: Hold, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Downloader]:
    assert not hold.reached.is_set()
    home = tmp_path_factory.mktemp("api")
    secret = home / "keys"
    secret.write_text(f"first-key\n{KEY}\n")
    environ = {"HF_ENDPOINT": origin.url, "R3MES_API_KEYS_FILE": str(secret), "R3MES_NODE": "node-1"}
    with Downloader(home, model(DATA), environ=environ) as service:
        service.wait_received(DIGEST, MIB)
        yield service


def test_status_tells_of_everything(service: Downloader) -> None:
    document = service.get("/api/v1/status")
    assert document["node"] == "node-1"
    assert document["genesis_sha256"] == sha256(service.genesis.read_bytes())
    assert document["staged_genesis_sha256"] is None
    assert document["redis_up"] is False
    assert document["queue"] is None
    assert document["miners"] == []
    assert 0 < document["disk"]["free_bytes"] <= document["disk"]["total_bytes"]
    (only,) = document["models"]
    assert set(only) == STATUS_FIELDS
    assert (only["sha256"], only["state"], only["received_bytes"]) == (DIGEST, "downloading", MIB)
    assert service.get("/api/v1/models")["models"][0]["sha256"] == DIGEST
    assert service.status(DIGEST.upper())["sha256"] == DIGEST


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", f"/api/v1/models/{OTHER_DIGEST}", 404, "model_not_found"),
        ("GET", "/api/v1/models/tiny", 404, "model_not_found"),
        ("GET", f"/api/v1/models/{OTHER_DIGEST}/events", 404, "model_not_found"),
        ("GET", "/api/v2/status", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("GET", "/openapi.json", 404, "not_found"),
        ("PUT", f"/api/v1/models/{DIGEST}", 405, "method_not_allowed"),
        ("GET", f"/api/v1/models/{DIGEST}/pause", 405, "method_not_allowed"),
    ],
)
def test_an_unknown_model_or_route_is_an_error_of_one_shape(
    service: Downloader, method: str, path: str, status: int, code: str
) -> None:
    answer = requests.request(method, f"{service.url}{path}", timeout=10)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert set(answer.json()["error"]) == {"message", "type", "code"}
    assert answer.json()["error"]["code"] == code


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": KEY}, 401),
        ({"Authorization": f"Basic {KEY}"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "Bearer schlüssel"}, 401),
        ({"Authorization": f"Bearer {KEY}", "Origin": "http://evil.example"}, 403),
        ({"Authorization": f"Bearer {KEY}", "Origin": "null"}, 403),
        ({"Authorization": f"Bearer {KEY}"}, 202),
        ({"Authorization": "bearer first-key"}, 202),
    ],
)
def test_a_word_needs_a_key_and_no_foreign_page(service: Downloader, headers: dict[str, str], status: int) -> None:
    encoded = {name: value.encode() for name, value in headers.items()}
    answer = requests.post(f"{service.url}/api/v1/models/{DIGEST}/resume", headers=encoded, timeout=10)
    assert answer.status_code == status
    if status != 202:
        assert set(answer.json()["error"]) == {"message", "type", "code"}
        assert KEY not in answer.text


def test_a_same_origin_page_may_ask(service: Downloader) -> None:
    answer = service.ask(DIGEST, "resume", Authorization=f"Bearer {KEY}", Origin=service.url)
    assert answer.status_code == 202
    assert set(answer.json()) == STATUS_FIELDS


def test_a_word_about_an_unknown_model_is_404(service: Downloader) -> None:
    answer = service.ask(OTHER_DIGEST, "pause", Authorization=f"Bearer {KEY}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def _events(service: Downloader, path: str) -> Iterator[dict[str, object]]:
    with requests.get(f"{service.url}{path}", stream=True, timeout=20) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        kind = ""
        for line in answer.iter_lines(chunk_size=None, decode_unicode=True):
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                assert kind == "status"
                yield json.loads(line.removeprefix("data: "))


@pytest.mark.parametrize("path", ["/api/v1/events", f"/api/v1/models/{DIGEST}/events"])
def test_an_event_stream_begins_with_the_present_state(service: Downloader, path: str) -> None:
    first = next(_events(service, path))
    assert set(first) == STATUS_FIELDS
    assert (first["sha256"], first["state"]) == (DIGEST, "downloading")


def test_the_stream_of_all_tells_of_node_and_miners_too(service: Downloader) -> None:
    wanted = {"status", "node", "miners"}
    with requests.get(f"{service.url}/api/v1/events", stream=True, timeout=20) as answer:
        kinds: dict[str, object] = {}
        for event in answer.iter_content(None):
            fields = dict(line.split(": ", 1) for line in event.decode().splitlines() if ": " in line)
            kinds[fields["event"]] = json.loads(fields["data"])
            if set(kinds) == wanted:
                break
    assert kinds["miners"] == []
    status = service.get("/api/v1/status")
    assert set(kinds["node"]) == set(status) - {"models", "miners"}


def test_the_page_shows_the_model_and_loads_nothing_from_elsewhere(service: Downloader) -> None:
    page = requests.get(f"{service.url}/", timeout=10)
    assert page.headers["content-type"].startswith("text/html")
    assert "Tiny" in page.text
    assert "Downloading" in page.text
    assert "//" not in page.text
    assert 'data-needs-key="yes"' in page.text


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/page/words.js", "/page/page.css", "/page/icon.svg"])
def test_whatever_belongs_to_the_page_is_served_under_a_strict_policy(service: Downloader, path: str) -> None:
    for method in ("GET", "HEAD"):
        answer = requests.request(method, f"{service.url}{path}", timeout=10)
        assert answer.status_code == 200
        policy = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
        assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_a_file_of_the_page_that_the_browser_has_is_not_sent_again(service: Downloader) -> None:
    url = f"{service.url}/page/page.js"
    tag = requests.get(url, timeout=10).headers["etag"]
    again = requests.get(url, headers={"If-None-Match": tag}, timeout=10)
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["model.html", "render.py", "..%2Frender.py", "no.js"])
def test_nothing_else_lies_beside_the_files_of_the_page(service: Downloader, name: str) -> None:
    assert requests.get(f"{service.url}/page/{name}", timeout=10).status_code == 404


def test_health_readiness_and_metrics(service: Downloader) -> None:
    assert service.get("/healthz") == {"status": "ok"}
    assert service.get("/readyz")["ready"] is True
    exposition = requests.get(f"{service.url}/metrics", timeout=10)
    assert exposition.headers["content-type"].startswith("text/plain")
    assert "\nprocess_start_time_seconds " in exposition.text
    names = {line.split()[2] for line in exposition.text.splitlines() if line.startswith("# TYPE r3mes_")}
    assert names == {
        "r3mes_build_info",
        "r3mes_genesis_info",
        "r3mes_download_bytes_total",
        "r3mes_download_attempts_total",
        "r3mes_download_fallbacks_total",
        "r3mes_downloads_in_progress",
        "r3mes_download_received_bytes",
        "r3mes_download_expected_bytes",
        "r3mes_download_duration_seconds",
        "r3mes_disk_free_bytes",
        "r3mes_model_state",
        "r3mes_chain_veto",
    }
    assert service.metric("r3mes_downloads_in_progress") == 1
    assert service.metric('r3mes_chain_veto{model="Tiny"}') == 0
    wait_until(lambda: service.metric('r3mes_download_received_bytes{model="Tiny"}') == MIB, what="the gauge")


def test_an_event_follows_each_change_until_the_last_byte(service: Downloader, hold: Hold) -> None:
    """The last test of this module: it lets the download end."""
    stream = _events(service, f"/api/v1/models/{DIGEST}/events")
    assert next(stream)["state"] == "downloading"
    hold.release()
    last = next(event for event in stream if event["state"] == "verifying")
    assert last["received_bytes"] == last["expected_bytes"] == len(DATA)
