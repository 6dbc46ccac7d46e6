from __future__ import annotations

import pytest

from services.downloader import control_rules as rules
from services.downloader.control_rules import Verb
from services.downloader.reconcile import EndRound, Fetch, History, Observation, Rest, next_action
from shared.states import FailureReason, ModelState, Source
from shared.store.records import Control

HF, IPFS = Source.HUGGINGFACE, Source.IPFS
TRIED = Control(attempts={HF: 5}, rounds=3, reason=FailureReason.SOURCE_UNAVAILABLE, message="m", next_attempt_at=9.0)


@pytest.mark.parametrize(
    ("verb", "wish", "forgiven", "cleared"),
    [
        (Verb.PAUSE, "paused", 0.0, False),
        (Verb.CANCEL, "cancelled", 0.0, False),
        (Verb.RESUME, "run", 0.0, False),
        (Verb.DOWNLOAD, "run", 0.0, True),
        (Verb.RETRY, "run", 50.0, True),
    ],
)
def test_an_operators_word(verb: Verb, wish: str, forgiven: float, cleared: bool) -> None:
    control = rules.obey(TRIED, verb, now=50.0)
    assert (control.wish, control.forgiven_before) == (wish, forgiven)
    assert (control.attempts, control.rounds, control.next_attempt_at) == (
        ({}, 0, None) if cleared else (TRIED.attempts, TRIED.rounds, TRIED.next_attempt_at)
    )


def test_a_round_in_which_all_sources_fail_is_remembered_and_the_next_one_comes_later() -> None:
    both = Observation(offered=(HF, IPFS))
    control, waits, now = Control(), [], 1000.0
    for _ in range(3):
        for source in (HF, IPFS):
            control = rules.at_begin(control)
            assert next_action(both, History(control), now) == Fetch(source)
            control = rules.after_give_up(control, source, "no answer", None)
        action = next_action(both, History(control), now)
        assert isinstance(action, EndRound)
        control = rules.after_round(control, action.reason, now)
        assert control.next_attempt_at is not None
        waits.append(control.next_attempt_at - now)
        now = control.next_attempt_at
    assert waits == [60, 120, 240]


def test_both_sources_are_named_when_a_round_ends() -> None:
    control = rules.after_give_up(Control(), HF, "404", None)
    control = rules.after_give_up(control, IPFS, "504", None)
    assert control.message == "huggingface: 404; ipfs: 504"


def test_an_upstream_mismatch_stays_the_reason_until_the_round_ends() -> None:
    control = rules.after_give_up(Control(), HF, "changed", FailureReason.UPSTREAM_MISMATCH)
    control = rules.after_give_up(control, IPFS, "504", None)
    assert control.reason is FailureReason.UPSTREAM_MISMATCH


def test_the_last_byte_ends_the_bill_but_not_the_operators_wish() -> None:
    control = rules.after_complete(TRIED.model_copy(update={"wish": "paused", "forgiven_before": 7.0}))
    assert control == Control(wish="paused", forgiven_before=7.0)


def test_what_was_wrong_before_a_verification_counts_no_longer() -> None:
    assert rules.after_verified(TRIED, 77.0) == Control(forgiven_before=77.0)


def test_a_message_of_any_length_fits_the_document() -> None:
    control = rules.after_give_up(Control(), HF, "x" * 10_000, None)
    assert Control.parse(control.model_dump_json().encode()) == control


def test_what_the_document_says_of_rounds_may_be_anything() -> None:
    control = rules.after_round(Control(rounds=2**63 - 1), FailureReason.SOURCE_UNAVAILABLE, 1000.0)
    assert control.next_attempt_at == 1000.0 + 3600.0


def test_after_trouble_on_this_machine_a_local_file_waits_as_well_and_an_operator_s_word_ends_it() -> None:
    offered, now = Observation(offered=(Source.IMPORT, HF)), 1000.0
    control = rules.after_hold(Control(), Source.IMPORT, FailureReason.SOURCE_UNAVAILABLE, "read-only", now + 60)
    waits = Rest(ModelState.FAILED, FailureReason.SOURCE_UNAVAILABLE, now + 60)
    assert next_action(offered, History(control), now) == waits
    assert next_action(offered, History(control), now + 60) == Fetch(Source.IMPORT)
    assert next_action(offered, History(rules.obey(control, Verb.RETRY, now)), now) == Fetch(Source.IMPORT)


def test_a_file_that_appears_while_another_source_s_trouble_is_waited_for_is_taken_at_once() -> None:
    control = rules.after_hold(Control(), HF, FailureReason.SOURCE_UNAVAILABLE, "read-only", 1060.0)
    assert next_action(Observation(offered=(Source.IMPORT, HF)), History(control), 1000.0) == Fetch(Source.IMPORT)
