"""The page for everybody: axe finds nothing, in light and dark, wide and on a phone; no sideways scroll; keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.integration.page.conftest import OpenPage
from tests.support.downloader_process import MIB, model
from tests.support.page_stand import DATA, DIGEST, KEY, PageStand
from tests.support.scripted_miner import Script, served

pytestmark = pytest.mark.slow
LONG = "An-Unusually-Long-Name-of-a-Model-That-Has-No-Space-Where-a-Line-Could-Break-0123456789-Instruct"
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageStand]:
    """A model that is downloading, one that failed, a miner that is ready, one that does not answer, and keys."""
    missing = model(b"x", model_name=LONG, file_name=f"{LONG}.gguf", download_source="https://huggingface.co/none")
    home = tmp_path_factory.mktemp("node") / "home"
    with PageStand(home, model(DATA), missing, R3MES_API_KEYS=KEY) as stand:
        stand.miner.script = Script(models=[served(LONG)], keys=(KEY,))
        stand.service.wait_received(DIGEST, MIB)
        yield stand


def violations(page: Page) -> str:
    results = Axe().run(page, options={**RULES, "resultTypes": ["violations"]})
    return "" if results.violations_count == 0 else str(results.generate_report())


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stands_in_anybodys_way(
    node: PageStand, open_page: OpenPage, scheme: Literal["light", "dark"], width: int
) -> None:
    # axe itself makes HTML from text, which the page's policy forbids.
    options: dict[str, Any] = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}, "bypass_csp": True}
    page = open_page(node.url, **options)
    expect(page.locator("#live")).to_have_text("Live", timeout=15_000)
    expect(page.locator(".miner .badge")).to_have_text("Ready", timeout=15_000)
    page.get_by_role("textbox", name="Prompt", exact=True).fill("x")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#prompt-error")).to_contain_text("The API key is missing or wrong")
    assert violations(page) == ""

    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Use", exact=True).click()
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#answer")).to_have_text("Paris")
    page.get_by_text("How the device was chosen").click()
    page.get_by_text("More", exact=True).click()
    page.evaluate("document.getElementById('lost').textContent = 'The connection was lost.'; lost.hidden = false")
    assert violations(page) == ""
    assert _overflow(page) == 0


def test_without_javascript_nothing_stands_in_the_way_either(node: PageStand, open_page: OpenPage) -> None:
    page = open_page(node.url, bypass_csp=True, viewport={"width": 375, "height": 800})
    html = page.request.get(node.url).text()
    page.route("**/*.js", lambda route: route.abort())
    page.goto(node.url)
    expect(page.locator("#no-script")).to_be_visible()
    assert '<noscript><meta http-equiv="refresh" content="5"></noscript>' in html
    assert violations(page) == ""
    assert _overflow(page) == 0


def _overflow(page: Page) -> int:
    width: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return width


@pytest.mark.parametrize("width", [320, 375, 768, 1024])
def test_no_width_scrolls_sideways(node: PageStand, open_page: OpenPage, width: int) -> None:
    page = open_page(node.url, viewport={"width": width, "height": 700})
    expect(page.locator(".model h3").nth(1)).to_have_text(LONG)
    expect(page.locator(".miner [data-field=name]")).to_have_text(LONG, timeout=15_000)
    assert _overflow(page) == 0


def test_all_of_it_can_be_reached_with_the_keyboard_and_the_focus_is_seen(node: PageStand, open_page: OpenPage) -> None:
    page = open_page(node.url)
    expect(page.locator("#prompt")).to_be_visible()
    expect(page.locator(".miner summary")).to_be_visible(timeout=15_000)
    wanted = page.locator("a, button, input, select, textarea, summary").locator("visible=true").count()
    reached: set[str] = set()
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        outline, name = page.evaluate(
            """() => { const at = document.activeElement;
            const name = at.id || `${at.closest("[data-key]")?.dataset.key} ${at.innerText}`;
            return [getComputedStyle(at).outlineStyle, at === document.body ? "" : name]; }"""
        )
        if name.strip():
            assert outline != "none", name
            reached.add(name)
    assert {"text", "model", "limit", "send", "key"} <= reached
    assert len(reached) >= wanted


def test_whoever_wants_no_motion_gets_none(node: PageStand, open_page: OpenPage) -> None:
    page = open_page(node.url, reduced_motion="reduce")
    moving = page.evaluate("document.getAnimations().length")
    duration = page.locator("progress").first.evaluate("bar => getComputedStyle(bar).transitionDuration")
    assert (moving, duration) == (0, "0s")
