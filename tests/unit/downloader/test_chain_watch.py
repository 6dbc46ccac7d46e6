"""When the chain is asked again, and what a person is told of its word."""

from __future__ import annotations

import pytest

from services.downloader.chain_watch import (
    STAYS_MESSAGE,
    VETO_MESSAGE,
    WAIT_MESSAGE,
    Word,
    _word,
    chain_message,
    pause_before_next,
)
from services.downloader.limits import DEFAULT_LIMITS
from services.downloader.reconcile import Action, Fetch, Observation, Rest, Settle
from shared.chain import Registry
from shared.states import ModelState, Source
from tests.support.geneses import DIGEST

PAUSES = [
    ("a quorum that has every pin", False, 0, 3600),
    ("a veto, which may be lifted", True, 0, 600),
    ("the first time without a quorum", False, 1, 60),
    ("the second time", False, 2, 120),
    ("a veto that nobody confirms", True, 3, 240),
    ("the seventh time", False, 7, 3600),
    ("a year without a quorum", False, 10_000, 3600),
]


@pytest.mark.parametrize(("what", "is_vetoing", "silent", "seconds"), PAUSES, ids=[case[0] for case in PAUSES])
def test_the_pause_before_the_next_question(what: str, silent: int, seconds: float, *, is_vetoing: bool) -> None:
    assert pause_before_next(DEFAULT_LIMITS, is_vetoing=is_vetoing, silent=silent) == seconds, what


MESSAGES = [
    ("verified, and in the registry", Settle(), Observation(), ""),
    ("verified, and vetoed", Settle(), Observation(vetoed=True), STAYS_MESSAGE),
    ("vetoed", Rest(ModelState.VETOED), Observation(vetoed=True), VETO_MESSAGE),
    ("unheard", Rest(ModelState.ABSENT), Observation(unheard=True), WAIT_MESSAGE),
    ("paused before the chain was heard", Rest(ModelState.PAUSED), Observation(unheard=True), ""),
    ("on its way", Fetch(Source.HUGGINGFACE), Observation(), ""),
]


@pytest.mark.parametrize(("what", "action", "observation", "message"), MESSAGES, ids=[case[0] for case in MESSAGES])
def test_a_person_is_told(what: str, action: Action, observation: Observation, message: str) -> None:
    assert chain_message(action, observation) == message, what


def test_what_a_consultation_prints_is_its_word() -> None:
    assert _word(f'{{"digests": ["{DIGEST}"], "line": "x"}}'.encode()) == Word(Registry(frozenset({DIGEST})), "x")
    assert _word(b'{"digests": null, "line": "x"}') == Word(None, "x")


@pytest.mark.parametrize("output", [b"", b"{", b"[]", b"{}", b'{"digests": 5, "line": ""}'])
def test_a_consultation_that_ends_early_has_no_word(output: bytes) -> None:
    assert _word(output).registry is None
