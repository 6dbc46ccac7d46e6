"""`r3mes ask`, `chat` and `status` with a real miner and the real model."""

from __future__ import annotations

import json

import pytest

from tests.integration.miner.stand import MODEL_NAME, SYSTEM, Miner
from tests.support.launching import launch
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
CAPITAL = "What is the capital of France?"
EXACT = ("--system", SYSTEM, "--temperature", "0", "--max-tokens", "24")


def test_a_question_is_answered_and_measured(miner: Miner) -> None:
    done = launch("ask", *EXACT, CAPITAL, "--url", f"{miner.url}/v1")
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert done.stderr.endswith(" tokens/s\n")
    document = json.loads(launch("ask", "--json", *EXACT, "-", given=CAPITAL, R3MES_URL=miner.url).stdout)
    assert (document["model"], document["answer"]) == (MODEL_NAME, done.stdout.removesuffix("\n"))
    assert document["tokens"] > 1


def test_a_question_that_does_not_fit_is_told_with_the_next_step(miner: Miner) -> None:
    done = launch("ask", "-", given="word " * 9000, R3MES_URL=miner.url)
    assert done.returncode == 2
    assert "next: ask a shorter question" in done.stderr


def test_a_person_chats_stops_and_goes_on(miner: Miner) -> None:
    with Terminal("chat", *EXACT[:4], "--max-tokens", "400", R3MES_URL=miner.url) as terminal:
        terminal.wait_for(f"{MODEL_NAME} at {miner.url}")
        terminal.wait_for(">>>")
        terminal.type(f"{CAPITAL}\r")
        terminal.wait_for("Paris")
        terminal.wait_for("tokens/s")
        terminal.type("Write a long story of a fox.\r")
        wait_until(lambda: miner.metric("r3mes_miner_requests_running") == 1, what="the story to begin")
        terminal.interrupt()
        terminal.wait_for("stopped")
        wait_until(lambda: miner.metric("r3mes_miner_requests_running") == 0, what="the sequence to be freed")
        terminal.type("/exit\r")
        assert terminal.end() == 0
