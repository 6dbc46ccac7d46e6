"""The page's words and its first state: what is said of each state, and that everything from outside is text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from services.downloader.page import fields, words
from services.downloader.page.assets import assets
from services.downloader.page.render import STATIC, Shown, fill, status_page
from shared.states import FailureReason, ModelState, ModelStatus, Source
from tests.support.geneses import DIGEST
from tests.support.scripted_miner import served

FACTS: dict[str, Any] = {
    "node": "n",
    "version": "1.0",
    "genesis_sha256": "g" * 64,
    "staged_genesis_sha256": None,
    "disk": {"free_bytes": 4 * 10**9, "total_bytes": 10**10},
    "queue": {"queued": 1, "started": 2},
    "redis_up": True,
}
EVIL = "<img src=x onerror=alert(1)>\"'&"


def status(state: ModelState = ModelState.DOWNLOADING, **changes: object) -> dict[str, Any]:
    return {**ModelStatus(DIGEST, "Tiny", "t.gguf", state).to_json(), **changes}


def miner(**changes: object) -> dict[str, Any]:
    view = {
        "url": "http://10.0.0.1:8080",
        "ready": True,
        "reason": "",
        "models": [served()],
        "running": 1,
        "waiting": 2,
    }
    return {**view, **changes}


def page(models: list[dict[str, Any]], miners: list[dict[str, Any]], **changes: object) -> str:
    return status_page(Shown({**FACTS, **changes}, models, miners, needs_key=False, miner_urls=("http://m:8080",)), 0.0)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.00 kB"), (12_345_678, "12.3 MB"), (10**12, "1.00 TB")],
)
def test_sizes_have_three_digits(count: int, text: str) -> None:
    assert fields.in_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "0 s"), (59.9, "59 s"), (60, "1 min"), (3660, "1 h 1 min"), (90_000, "1 d 1 h")]
)
def test_spans_are_rough(seconds: float, text: str) -> None:
    assert fields.in_time(seconds) == text


def test_a_hundred_percent_is_all_of_it() -> None:
    assert (fields.percent(999, 1000), fields.percent(1000, 1000), fields.percent(1, None)) == ("99 %", "100 %", "")


def test_a_time_that_no_calendar_has_is_not_shown() -> None:
    assert fields.at(1e300) == fields.at(None) == ""
    assert fields.at(0) == "1970-01-01 00:00 UTC"


def test_every_state_reason_and_source_has_words() -> None:
    assert set(words.STATES) == set(ModelState)
    assert set(words.STORIES) | {ModelState.FAILED} == set(ModelState)
    assert set(words.REASONS) == set(FailureReason)
    assert set(words.SOURCES) == set(Source)
    assert set(words.ACTIONS) == set(ModelState) | {words.CANCELLED}


def test_a_download_tells_share_rate_and_time_left() -> None:
    shown = fields.model(
        status(
            source="huggingface",
            received_bytes=4 * 10**9,
            expected_bytes=10**10,
            hashed_bytes=3 * 10**9,
            bytes_per_second=2e7,
            eta_seconds=300.0,
        ),
        0,
    )
    assert shown["story"] == "The bytes come from Hugging Face, and are verified as they come."
    assert shown["received"] == "40 % · 4.00 GB of 10.0 GB · 20.0 MB/s · 5 min left"
    assert shown["received_bar"] == (4 * 10**9, 10**10)
    assert shown["hashed"] == "30 % · 3.00 GB of 10.0 GB"


def test_a_download_of_unknown_size_has_a_count_and_a_full_bar() -> None:
    shown = fields.model(status(received_bytes=5000), 0)
    assert (shown["received"], shown["received_bar"], shown["hashed"]) == ("5.00 kB", (5000, 5000), "")


@pytest.mark.parametrize(
    ("reason", "next_attempt_at", "text"),
    [
        ("source_unavailable", 160.0, "Next attempt in 1 min."),
        ("hash_mismatch", None, "It stays so until somebody acts: correct the cause, then try again."),
        ("cancelled", None, ""),
    ],
)
def test_a_failure_tells_when_it_is_tried_again(reason: str, next_attempt_at: float | None, text: str) -> None:
    failed = status(ModelState.FAILED, reason=reason, next_attempt_at=next_attempt_at, message="why it is so")
    shown = fields.model(failed, 100.0)
    assert (shown["next"], shown["message"]) == (text, "Why it is so.")
    assert shown["story"] == words.REASONS[FailureReason(reason)]


def test_a_miner_tells_its_device_and_why() -> None:
    shown = fields.served(served())
    assert (shown["engine"], shown["device"], shown["context"]) == ("llama.cpp", "CPU, 4 threads", "8,192 tokens")
    assert shown["device_reason"] == "No layer on a GPU: this build of llama.cpp finds none."
    some = {"gpu_offload_active": True, "gpu_layers": 12, "threads": 1}
    assert fields.served(served(hardware=some))["device"] == "GPU, 12 layers"
    assert fields.served(served(hardware={**some, "gpu_layers": -1}))["device"] == "GPU, all layers"
    assert fields.served(served(loaded=False))["asleep"]


def test_of_a_model_behind_a_gateway_the_name_is_enough() -> None:
    shown = fields.served({"id": "Far"})
    assert shown.pop("name") == "Far"
    assert not any(shown.values())


@pytest.mark.parametrize(
    ("models", "miners", "tone", "sentence"),
    [
        ([], [], "busy", "No model is here yet."),
        ([status(received_bytes=1, expected_bytes=4)], [miner(ready=False)], "busy", "Downloading Tiny, 25 %."),
        ([status(ModelState.VERIFYING)], [], "busy", "Verifying Tiny."),
        ([status(ModelState.FAILED)], [], "bad", "Tiny is not here, and needs a look."),
        ([status(ModelState.VERIFIED)], [], "busy", "Tiny is verified, but no miner answers yet."),
        ([status(ModelState.VERIFIED)], [miner(ready=False)], "busy", "Tiny is verified, but no miner is ready yet."),
        ([status()], [miner()], "good", "A miner is ready: Tiny."),
        ([], [miner(), miner(models=[])], "good", "2 miners are ready: Tiny."),
    ],
)
def test_the_headline_says_where_the_node_stands(
    models: list[dict[str, Any]], miners: list[dict[str, Any]], tone: str, sentence: str
) -> None:
    assert fields.headline(models, miners) == (tone, sentence)


def test_whatever_comes_from_outside_is_text() -> None:
    evil = status(model_name=EVIL, file_name=EVIL, message=EVIL, sha256=EVIL, state=EVIL, source=EVIL)
    views = [
        miner(url=EVIL, models=[served(EVIL, engine=EVIL, hardware={"why": [EVIL]})]),
        miner(ready=False, reason=EVIL),
    ]
    html = page([evil], views, node=EVIL)
    assert "<img src=x" not in html
    assert html.count("&lt;img src=x onerror=alert(1)&gt;&quot;&#x27;&amp;") > 8


def test_the_first_state_stands_in_the_page_itself() -> None:
    html = page([status(received_bytes=1, expected_bytes=4)], [miner()])
    assert '<progress data-bar="received_bar" aria-label="Downloaded" value="1" max="4">' in html
    assert "<li>no layer on a GPU: this build of llama.cpp finds none</li>" in html
    assert "1 waiting, 2 at work" in html
    assert "4.00 GB free of 10.0 GB" in html
    assert 'data-state="downloading"' in html


def test_where_nothing_is_it_says_so() -> None:
    html = page([], [])
    assert '<p class="empty" data-of="no_models">' in html
    assert "None answers at http://m:8080." in html


def test_a_place_without_a_value_stays_as_it_is() -> None:
    html = '<p data-field="x"></p><b data-of="y">kept</b><i data-field="z"></i>'
    assert (
        fill(html, {"x": "", "y": ""})
        == '<p data-field="x" hidden></p><b data-of="y" hidden>kept</b><i data-field="z"></i>'
    )


class _Addresses(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        self.found += [value for name in ("src", "href") if (value := names.get(name))]
        self.inline += [name for name in names if name == "style" or name.startswith("on")]
        self.inline += [tag] if tag == "style" or (tag == "script" and "src" not in names) else []


def test_the_page_asks_for_its_own_files_alone_and_has_nothing_inline() -> None:
    parser = _Addresses()
    parser.feed(page([status()], [miner()]))
    assert parser.inline == []
    assert {address for address in parser.found if not address.startswith("#")} == {
        "page/icon.svg",
        "page/page.css",
        "page/page.js",
        "api/v1/status",
    }


@pytest.mark.parametrize("path", sorted(STATIC.iterdir()), ids=lambda path: path.name)
def test_no_file_of_the_page_names_another_place_or_makes_html(path: Path) -> None:
    text = path.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "://" not in text
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|@import|url\(", text)


def test_a_script_finds_what_it_imports() -> None:
    for name, asset in assets().items():
        for imported in re.findall(r'from "\./([^"]+)"', asset.content.decode()):
            assert imported in assets(), f"{name} imports {imported}"
