"""What the server writes into the page and what the browser makes of the same documents is one and the same."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from services.downloader.page.assets import SECURITY_HEADERS, assets
from services.downloader.page.render import Shown, status_page
from shared.states import FailureReason, ModelState, ModelStatus, Source
from tests.integration.page.conftest import OpenPage
from tests.support.scripted_miner import served

pytestmark = pytest.mark.slow
URL = "http://127.0.0.1:9/"
EVIL = "<img src=x onerror=alert(1)>\"'&amp;"
FACTS: dict[str, Any] = {
    "node": EVIL,
    "version": "1.0",
    "genesis_sha256": "a1" * 32,
    "staged_genesis_sha256": "b2" * 32,
    "disk": {"free_bytes": 40 * 10**9, "total_bytes": 271 * 10**9},
    "queue": {"queued": 1, "started": 2},
    "redis_up": True,
}
GPU = {"gpu_layers": 12, "gpu_offload_active": True, "threads": 8, "why": ["12 of 33 layers on the GPU", EVIL]}
MINERS: list[dict[str, Any]] = [
    {"url": "http://10.0.0.1:8080", "ready": True, "reason": "", "models": [served()], "running": 3, "waiting": 0},
    {"url": "http://10.0.0.2:8080", "ready": False, "reason": EVIL, "models": [], "running": None, "waiting": None},
    {
        "url": "http://10.0.0.3:8080",
        "ready": True,
        "reason": "",
        "models": [served(EVIL, hardware=GPU, loaded=False, engine="torch", engine_reason=EVIL), {"id": "Far"}],
        "running": 1,
        "waiting": 1,
    },
]


def models(now: float) -> list[dict[str, Any]]:
    """Every state, every reason of a failure, with and without sizes."""
    number = 0

    def one(state: ModelState, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of a status
        nonlocal number
        number += 1
        return ModelStatus(f"{number:064x}", f"{EVIL} {number}", f"{number}.gguf", state, **changes).to_json()

    sizes = {"received_bytes": 1_234_567_890, "expected_bytes": 4_000_000_000, "hashed_bytes": 999_999}
    found = [one(state) for state in ModelState]
    found += [one(state, **sizes, source=Source.HUGGINGFACE) for state in ModelState]
    found += [one(ModelState.FAILED, reason=reason, message=EVIL) for reason in FailureReason]
    found += [
        one(ModelState.FAILED, reason=FailureReason.DISK_FULL, next_attempt_at=now + 7199),
        one(ModelState.DOWNLOADING, received_bytes=1, bytes_per_second=45.4e6, eta_seconds=3661, source=Source.IPFS),
        one(ModelState.VERIFIED, **sizes, verified_at=1.7e9, source=Source.IMPORT),
    ]
    return found


def shown_by(page: Page) -> list[list[str]]:
    """Return the text of every place that is not hidden, and how full the bars are."""
    script = """places => places
        .filter(place => !place.closest("[hidden]") && !place.closest("title"))
        .map(place => [place.dataset.field ?? place.dataset.bar ?? place.dataset.list,
                       place.dataset.bar ? `${place.value}/${place.max}` : place.textContent])"""
    found: list[list[str]] = page.locator("[data-field], [data-bar], [data-list]").evaluate_all(script)
    return [[name, text.removesuffix(" UTC")] for name, text in found]


@pytest.mark.parametrize(
    ("changes", "with_miners"),
    [({}, True), ({"staged_genesis_sha256": None, "queue": None, "redis_up": False}, False)],
    ids=["everything", "alone"],
)
def test_server_and_browser_say_the_same(open_page: OpenPage, changes: dict[str, Any], with_miners: bool) -> None:
    now = time.time()
    facts, statuses, miners = {**FACTS, **changes}, models(now), MINERS if with_miners else []
    html = status_page(Shown(facts, statuses, miners, needs_key=False, miner_urls=(EVIL,)), now)

    def serve(route: Route) -> None:
        path = route.request.url.removeprefix(URL)
        if path == "":
            route.fulfill(body=html, headers={**SECURITY_HEADERS, "Content-Type": "text/html"})
        elif path.startswith("page/"):
            asset = assets()[path.removeprefix("page/")]
            route.fulfill(body=asset.content, content_type=asset.media_type)
        elif path == "api/v1/status":
            date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now))
            documents = {**facts, "models": statuses, "miners": miners}
            route.fulfill(json=documents, headers={"Date": date, "Content-Type": "application/json"})
        else:
            route.abort()

    sayings = []
    for scripted in (False, True):
        page = open_page("about:blank", timezone_id="UTC", java_script_enabled=scripted)
        page.route("**/*", serve)
        page.goto(URL)
        if scripted:
            expect(page.locator("#live")).to_have_text("Connection lost")  # after everything was shown once
        sayings.append(shown_by(page))
    by_server, by_browser = sayings
    assert len(by_server) > 100
    assert _without_countdown(by_browser) == _without_countdown(by_server)
    assert json.dumps(by_server).count("<img src=x") > 20


def _without_countdown(saying: list[list[str]]) -> list[list[str]]:
    """A second may pass between the two."""
    return [[name, text.replace("1 h 58 min", "1 h 59 min")] for name, text in saying]
