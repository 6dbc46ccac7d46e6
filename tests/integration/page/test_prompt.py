"""The box to try a prompt, in a real browser: answers as they are streamed, a stop, and every way in which it fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.integration.miner.stand import MODEL_NAME, SYSTEM, Miner, Store
from tests.integration.page.conftest import OpenPage
from tests.support.little_gateway import LittleGateway
from tests.support.page_stand import KEY, PageStand
from tests.support.scripted_miner import Script, served

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageStand]:
    with PageStand(tmp_path_factory.mktemp("node") / "home") as stand:
        yield stand


@pytest.fixture
def script(node: PageStand) -> Script:
    """A ready miner that has its first token out, and waits with the others."""
    node.miner.script = Script()
    node.gateway.miner = node.miner.url
    return node.miner.script


def ready(page: Page, model: str = "Tiny") -> Page:
    expect(page.get_by_role("combobox", name="Model")).to_have_value(model)
    return page


def send(page: Page, text: str = "What is the capital of France?") -> None:
    page.get_by_role("textbox", name="Prompt", exact=True).fill(text)
    page.get_by_role("button", name="Send").click()


def error(page: Page, text: str) -> None:
    expect(page.locator("#prompt-error")).to_have_text(text)
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    expect(page.get_by_role("textbox", name="Prompt", exact=True)).not_to_have_value(
        ""
    )  # nothing that was written is lost


def test_an_answer_is_shown_as_it_comes(node: PageStand, script: Script, open_page: OpenPage) -> None:
    page = ready(open_page(node.url))
    page.get_by_role("textbox", name="Prompt", exact=True).fill("What is the capital of France?")
    page.get_by_label("Most tokens").fill("7")
    page.get_by_role("textbox", name="Prompt", exact=True).press("Control+Enter")
    answer = page.locator("#answer")
    expect(answer).to_have_text("Paris")
    expect(answer).to_have_attribute("aria-busy", "true")
    expect(page.get_by_role("button", name="Stop")).to_be_focused()
    script.released.set()
    expect(answer).to_have_text("Paris is the capital.")
    figures = re.compile(r"^5 tokens · \d+\.\d tokens/s · first after \d+\.\d\d s$")
    expect(page.locator("#figures")).to_have_text(figures)
    expect(answer).to_have_attribute("aria-busy", "false")
    expect(page.get_by_role("button", name="Send")).to_be_focused()
    (asked,) = script.asked
    assert asked == {
        "model": "Tiny",
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 7,
        "temperature": 0.7,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_stop_ends_it_for_the_miner_too_and_keeps_what_came(
    node: PageStand, script: Script, open_page: OpenPage
) -> None:
    page = ready(open_page(node.url))
    send(page)
    expect(page.locator("#answer")).to_have_text("Paris")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#figures")).to_have_text(re.compile(r"^1 token · .* · stopped$"))
    expect(page.locator("#answer")).to_have_text("Paris")
    assert script.gone.wait(10)
    script.released.set()
    send(page)
    expect(page.locator("#answer")).to_have_text("Paris is the capital.")


def test_an_answer_that_the_limit_cut_says_so(node: PageStand, script: Script, open_page: OpenPage) -> None:
    script.finish = "length"
    script.released.set()
    page = ready(open_page(node.url))
    send(page)
    expect(page.locator("#figures")).to_have_text(re.compile("cut at 256 tokens$"))


def refusal(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "t", "param": None, "code": None}}


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (
            (429, {"Retry-After": "5"}, refusal("every miner is busy")),
            "Busy: every miner is busy (trying again makes sense in 5 s)",
        ),
        ((503, {}, refusal("the model is being loaded")), "No miner is ready: the model is being loaded"),
        ((400, {}, refusal("<b>too long</b>")), "It was refused: <b>too long</b>"),
        ((500, {}, {}), "It was refused: the service answers with status 500"),
    ],
)
def test_an_error_says_what_its_body_says(
    node: PageStand, script: Script, open_page: OpenPage, failure: tuple[int, dict[str, str], dict[str, Any]], text: str
) -> None:
    script.failure = failure
    page = ready(open_page(node.url))
    send(page)
    error(page, text)
    script.failure = None
    script.released.set()
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#answer")).to_have_text("Paris is the capital.")
    expect(page.locator("#prompt-error")).to_be_hidden()


def test_an_error_within_the_stream_leaves_what_came(node: PageStand, script: Script, open_page: OpenPage) -> None:
    script.breaks = refusal("the engine died")
    script.released.set()
    page = ready(open_page(node.url))
    send(page)
    error(page, "The answer ended early: the engine died")
    expect(page.locator("#answer")).to_have_text("Paris is the capital.")


def test_a_stream_that_breaks_off_says_so(node: PageStand, script: Script, open_page: OpenPage) -> None:
    page = ready(open_page(node.url))
    send(page)
    expect(page.locator("#answer")).to_have_text("Paris")
    node.gateway.break_off()
    expect(page.locator("#prompt-error")).to_have_text(re.compile("^(The answer ended early|The connection broke off)"))
    expect(page.locator("#answer")).to_have_text("Paris")
    script.released.set()


def test_while_no_miner_is_ready_the_box_says_so_and_works_later(
    node: PageStand, script: Script, open_page: OpenPage
) -> None:
    script.ready, script.models = False, []
    node.gateway.miner = None
    page = open_page(node.url)
    expect(page.get_by_role("combobox", name="Model")).to_have_text("none is ready")
    send(page)
    error(page, "No miner is ready: no service is ready for this (yet)")
    node.gateway.miner = node.miner.url
    script.ready, script.models = True, [served("One"), served("Two")]
    script.released.set()
    ready(page, "One").get_by_role("combobox", name="Model").select_option("Two")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#answer")).to_have_text("Paris is the capital.")
    assert script.asked[-1]["model"] == "Two"


def test_a_miner_that_wants_a_key_gets_the_one_that_is_typed(
    node: PageStand, script: Script, open_page: OpenPage
) -> None:
    script.keys = (KEY,)
    script.released.set()
    page = open_page(node.url)
    expect(page.get_by_label("API key")).to_be_visible()
    send(page)
    error(page, "The API key is missing or wrong: an API key is needed")
    expect(page.get_by_label("API key")).to_be_focused()
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Use", exact=True).click()
    ready(page)
    send(page)
    expect(page.locator("#answer")).to_have_text("Paris is the capital.")


def test_beside_the_gateway_the_page_says_where_to_go(node: PageStand, script: Script, open_page: OpenPage) -> None:
    page = open_page(f"{node.service.url}/")
    expect(page.locator("#no-gateway")).to_contain_text("Open the gateway instead: port 8000.")
    expect(page.locator("#gateway")).to_have_attribute("href", "http://127.0.0.1:8000/")
    expect(page.get_by_role("textbox", name="Prompt", exact=True)).to_be_hidden()
    assert script.asked == []


def test_under_a_prefix_everything_works(node: PageStand, script: Script, open_page: OpenPage) -> None:
    script.released.set()
    with LittleGateway(node.service.url, node.miner.url, prefix="/r3mes/node-1") as gateway:
        page = ready(open_page(gateway.url))
        expect(page.locator("#live")).to_have_text("Live")
        send(page)
        expect(page.locator("#answer")).to_have_text("Paris is the capital.")
        assert all(request.split()[1].startswith("/r3mes/node-1/") for request in gateway.requests)


@pytest.mark.timeout(300)
def test_the_real_model_is_shown_with_its_device_and_answers_in_the_page(tmp_path: Path, open_page: OpenPage) -> None:
    store = Store(tmp_path)
    store.put_model()
    with Miner(store) as miner:
        miner.wait_ready(200)
        with PageStand(tmp_path / "home", R3MES_MINER_URL=miner.url) as stand:
            stand.gateway.miner = miner.url
            page = ready(open_page(stand.url), MODEL_NAME)
            expect(page.locator(".miner [data-field=engine]")).to_have_text("llama.cpp")
            expect(page.locator(".miner [data-field=device]")).to_have_text(re.compile("^CPU, 1 thread$|^GPU"))
            expect(page.locator(".miner [data-field=load]")).to_have_text("0 running, 0 waiting")
            page.get_by_label("Most tokens").fill("24")
            page.get_by_text("More", exact=True).click()
            page.get_by_label("Temperature").fill("0")
            page.get_by_label("System prompt").fill(SYSTEM)
            send(page)
            expect(page.locator("#answer")).to_have_text(re.compile("Paris"), timeout=120_000)
            figures = re.compile(r"^\d+ tokens · \d+\.\d tokens/s · first after \d+\.\d\d s( · cut at 24 tokens)?$")
            expect(page.locator("#figures")).to_have_text(figures, timeout=60_000)
