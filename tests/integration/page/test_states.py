"""The page in a real browser: states change while one looks, an operator steers, the line is lost and comes back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.integration.page.conftest import OpenPage
from tests.support.downloader_process import MIB, model
from tests.support.origin_server import status
from tests.support.page_stand import DATA, DIGEST, KEY, PATH, PageStand
from tests.support.scripted_miner import served
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow
EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def live(page: Page) -> Page:
    expect(page.locator("#live")).to_have_text("Live")
    return page


def badge(page: Page, text: str) -> None:
    expect(page.locator(".model .badge").first).to_have_text(text)


def headline(page: Page, text: str) -> None:
    expect(page.locator(".headline")).to_have_text(text)


def test_a_model_is_watched_from_its_first_bytes_until_a_miner_answers(stand: PageStand, open_page: OpenPage) -> None:
    stand.service.wait_received(DIGEST, MIB)
    page = live(open_page(stand.url))
    page.evaluate("window.mark = 1")
    badge(page, "Downloading")
    headline(page, "Downloading Tiny, 33 %.")
    bar = page.locator(".model progress").first
    assert bar.evaluate("bar => [bar.value, bar.max]") == [MIB, len(DATA)]
    expect(page.locator(".model [data-field=received]")).to_contain_text("33 % · 1.05 MB of 3.15 MB")
    expect(page.locator(".miner [data-field=reason]")).to_have_text("Waits for Tiny to be verified.")

    stand.hold.release()
    badge(page, "Verifying")
    assert bar.evaluate("bar => bar.value") == len(DATA)
    stand.promote()
    badge(page, "Verified")
    expect(page.locator("#said")).to_have_text("Tiny: Verified")
    expect(page.locator(".model [data-field=verified]")).not_to_be_empty()
    headline(page, "Tiny is verified, but no miner is ready yet.")

    stand.miner.script.ready, stand.miner.script.models, stand.miner.script.running = True, [served()], 2
    headline(page, "A miner is ready: Tiny.")
    expect(page.locator(".miner .badge")).to_have_text("Ready")
    expect(page.locator(".miner [data-field=device]")).to_have_text("CPU, 4 threads")
    expect(page.locator(".miner [data-field=load]")).to_have_text("2 running, 0 waiting")
    assert page.title() == "A miner is ready: Tiny · R3MES"
    assert page.evaluate("window.mark") == 1  # all of that without loading the page again


def test_a_failure_is_told_with_the_next_attempt_and_tried_again_at_a_click(
    stand: PageStand, open_page: OpenPage
) -> None:
    right = stand.origin.scripts[PATH]
    stand.origin.scripts[PATH] = status(404)
    stand.service.ask(DIGEST, "retry")
    page = live(open_page(stand.url))
    badge(page, "Failed")
    expect(page.locator(".model [data-field=story]")).to_have_text("No source delivers it.")
    expect(page.locator(".model [data-field=message]")).to_contain_text("404")
    left = page.locator(".model [data-field=next]")
    expect(left).to_have_text(re.compile(r"Next attempt in \d+ s\."))
    before = left.inner_text()
    expect(left).not_to_have_text(before)  # it counts down
    stand.origin.scripts[PATH] = right
    page.get_by_role("button", name="Try again now").click()
    badge(page, "Downloading")


def test_an_operator_steers_by_keyboard_and_the_focus_is_not_lost(stand: PageStand, open_page: OpenPage) -> None:
    stand.service.wait_received(DIGEST, MIB)
    page = live(open_page(stand.url))
    page.get_by_role("button", name="Pause").focus()
    page.keyboard.press("Enter")
    badge(page, "Paused")
    expect(page.get_by_role("button", name="Resume")).to_be_focused()
    page.keyboard.press("Enter")
    badge(page, "Downloading")
    page.get_by_role("button", name="Cancel").click()
    badge(page, "Failed")
    expect(page.locator(".model [data-field=story]")).to_have_text("An operator cancelled it.")
    assert stand.service.status(DIGEST)["reason"] == "cancelled"


def test_a_word_that_needs_a_key_asks_for_it_and_the_key_stays_in_the_tab(tmp_path: Path, open_page: OpenPage) -> None:
    with PageStand(tmp_path / "home", R3MES_API_KEYS=KEY) as stand:
        stand.service.wait_received(DIGEST, MIB)
        page = live(open_page(stand.url))
        page.get_by_role("button", name="Pause").click()
        expect(page.locator(".model .error")).to_contain_text("an API key is needed")
        key = page.get_by_label("API key")
        expect(key).to_be_focused()
        assert key.get_attribute("type") == "password"
        key.fill(KEY)
        key.press("Enter")
        page.get_by_role("button", name="Pause").click()
        badge(page, "Paused")
        expect(page.locator(".model .error")).to_be_hidden()
        assert page.evaluate("[Object.values(sessionStorage), localStorage.length, document.cookie]") == [[KEY], 0, ""]
        page.reload()
        live(page).get_by_role("button", name="Resume").click()
        badge(page, "Downloading")
        assert not any(KEY in request for request in stand.gateway.requests)


def test_a_lost_connection_is_told_and_comes_back_by_itself(stand: PageStand, open_page: OpenPage) -> None:
    stand.service.wait_received(DIGEST, MIB)
    page = live(open_page(stand.url))
    stand.gateway.stop()
    expect(page.locator("#live")).to_have_text("Connection lost")
    expect(page.locator("#lost")).to_contain_text("What you see is from then.")
    badge(page, "Downloading")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".model .error")).to_have_text("That did not arrive: the connection is lost.")

    away, stand.gateway.downloader = stand.gateway.downloader, "http://127.0.0.1:1"
    stand.gateway.start()  # but there is no downloader behind it yet
    stand.hold.release()
    stand.service.wait_for(DIGEST, "verifying")
    expect(page.locator("#live")).to_have_text("Connection lost")
    stand.gateway.downloader = away
    live(page)
    expect(page.locator("#lost")).to_be_hidden()
    badge(page, "Verifying")


def test_a_downloader_that_starts_anew_is_followed(stand: PageStand, open_page: OpenPage) -> None:
    page = live(open_page(stand.url))
    stand.service.kill()
    expect(page.locator("#live")).to_have_text("Connection lost")
    stand.service.start()
    stand.gateway.downloader = stand.service.url
    live(page)


def test_a_model_of_the_next_genesis_appears(stand: PageStand, open_page: OpenPage) -> None:
    page = live(open_page(stand.url))
    staged = model(b"next", model_name="Next", file_name="next.gguf", download_source="https://huggingface.co/next")
    stand.service.layout.next_genesis.write_bytes(json.dumps({"models": [model(DATA), staged]}).encode())
    expect(page.locator(".model h3")).to_have_text(["Tiny", "Next"])
    expect(page.locator("[data-field=staged]")).to_be_visible()
    stand.service.layout.next_genesis.unlink()
    expect(page.locator(".model h3")).to_have_text(["Tiny"])


def test_a_miner_that_says_html_is_shown_as_it_says_and_nothing_happens(stand: PageStand, open_page: OpenPage) -> None:
    stand.miner.script.ready, stand.miner.script.reason = True, EVIL
    stand.miner.script.models = [served(EVIL, engine=EVIL, hardware={"threads": 1, "why": [EVIL]})]
    stand.miner.script.tokens = (EVIL,)
    wait_until(
        lambda: any(miner["models"] for miner in stand.service.get("/api/v1/status")["miners"]),  # none before a look
        what="the miner's model",
    )
    for scripted in (False, True):
        page = open_page(stand.url, java_script_enabled=scripted)
        expect(page.locator(".miner [data-field=engine]")).to_have_text(EVIL)
        assert page.locator("main img, main script").count() == 0
    live(page).get_by_role("textbox", name="Prompt", exact=True).fill("x")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#answer")).to_have_text(EVIL)
    assert page.locator("main img, main script").count() == 0


def test_miners_that_come_and_go_are_cards_that_come_and_go(stand: PageStand, open_page: OpenPage) -> None:
    stand.miner.script.models = [served("One"), served("Two")]
    page = live(open_page(stand.url))
    names = page.locator(".miner [data-field=name]")
    expect(names).to_have_text(["One", "Two"])
    page.get_by_text("How the device was chosen").first.click()
    stand.miner.script.models = [served("One"), served("Three")]
    expect(names).to_have_text(["One", "Three"])
    expect(page.locator(".miner details").first).to_have_attribute("open", "")  # what did not change stays as it is


def test_without_javascript_the_state_is_there_and_looked_at_again(stand: PageStand, open_page: OpenPage) -> None:
    stand.service.wait_received(DIGEST, MIB)
    page = open_page(stand.url, java_script_enabled=False)
    badge(page, "Downloading")
    headline(page, "Downloading Tiny, 33 %.")
    expect(page.get_by_text("This box needs JavaScript")).to_be_visible()
    assert page.locator("main button:visible").count() == 0
    wait_until(lambda: stand.gateway.requests.count("GET /") > 1, what="the page to be loaded again")


def test_the_pace_of_a_verification_is_that_of_its_last_seconds(stand: PageStand, open_page: OpenPage) -> None:
    page = live(open_page(stand.url))
    rate, seconds, none, anew = page.evaluate(
        """async () => {
        const { Pace } = await import(new URL("page/pace.js", location).href);
        const pace = new Pace();
        const at = (hashed_bytes) => ({ sha256: "x", hashed_bytes, expected_bytes: 3000 });
        pace.note(at(1000));
        const none = pace.of(at(1000)).length;
        await new Promise((resolve) => setTimeout(resolve, 100));
        pace.note(at(2000));
        const known = pace.of(at(2000));
        pace.note(at(0));
        return [...known, none, pace.of(at(0)).length]; }"""
    )
    assert 0 < rate <= 11_000  # 1000 bytes in at least 0.1 s
    assert abs(rate * seconds - 1000) < 1  # for the 1000 that are left
    assert (none, anew) == (0, 0)


def test_the_digest_is_copied(stand: PageStand, open_page: OpenPage) -> None:
    page = live(open_page(stand.url, permissions=["clipboard-read", "clipboard-write"]))
    page.get_by_role("button", name="Copy the SHA-256").click()
    wait_until(lambda: page.evaluate("navigator.clipboard.readText()") == DIGEST, what="the digest in the clipboard")
