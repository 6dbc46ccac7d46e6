"""The whole table of what a start does with the genesis, and the properties that hold for all of it."""

from __future__ import annotations

import itertools

import pytest

from shared.acceptance import StartAction, TrustDigests, decide_start

OLD, NEW, OTHER = "a" * 64, "b" * 64, "c" * 64


def trust(
    genesis: str | None = None,
    accepted: str | None = None,
    staged: str | None = None,
    *,
    in_use: bool = True,
    unreadable: bool = False,
) -> TrustDigests:
    empty = genesis is None and accepted is None and not unreadable
    return TrustDigests(genesis, accepted, staged, empty=empty, store_in_use=in_use)


CASES: list[tuple[str, str | None, TrustDigests, StartAction]] = [
    ("a first start", NEW, trust(in_use=False), StartAction.ACCEPT),
    ("a first start without a file", None, trust(in_use=False), StartAction.REFUSE_NOTHING),
    ("the accepted pair removed", NEW, trust(), StartAction.REFUSE_REMOVED),
    ("the accepted pair removed, no file", None, trust(), StartAction.REFUSE_REMOVED),
    ("nothing changed", OLD, trust(OLD, OLD), StartAction.GO_ON),
    ("nothing changed, another one staged", OLD, trust(OLD, OLD, NEW), StartAction.GO_ON),
    ("no file", None, trust(OLD, OLD), StartAction.GO_ON),
    ("store.json not yet written", OLD, trust(OLD, OLD, in_use=False), StartAction.GO_ON),
    ("the staged file", NEW, trust(OLD, OLD, NEW), StartAction.GO_ON_STAGED),
    ("a changed file", NEW, trust(OLD, OLD), StartAction.REFUSE_CHANGED),
    ("a changed file that is not the staged one", OTHER, trust(OLD, OLD, NEW), StartAction.REFUSE_CHANGED),
    ("a first start killed between the writes", NEW, trust(NEW, None, in_use=False), StartAction.REPAIR),
    ("an accept killed between the writes", NEW, trust(NEW, OLD), StartAction.REPAIR),
    ("the same, and the file put back since", OLD, trust(NEW, OLD), StartAction.REFUSE_DISAGREE),
    ("the same, and a third file since", OTHER, trust(NEW, OLD), StartAction.REFUSE_DISAGREE),
    ("the same, and no file", None, trust(NEW, OLD), StartAction.REFUSE_DISAGREE),
    ("genesis.json exchanged in place", OLD, trust(OTHER, OLD), StartAction.REFUSE_DISAGREE),
    ("accepted.json exchanged in place", OLD, trust(OLD, OTHER), StartAction.REPAIR),
    ("genesis.json removed", OLD, trust(None, OLD), StartAction.REFUSE_DISAGREE),
    ("accepted.json removed, no file", None, trust(OLD, None), StartAction.REFUSE_DISAGREE),
    ("both unreadable", OLD, trust(unreadable=True, in_use=False), StartAction.REFUSE_DISAGREE),
]


@pytest.mark.parametrize(("what", "operator", "state", "action"), CASES, ids=[case[0] for case in CASES])
def test_a_start(what: str, operator: str | None, state: TrustDigests, action: StartAction) -> None:
    assert decide_start(operator, state) is action, what


DIGESTS = (None, OLD, NEW, OTHER)
ALL_STATES = [
    (operator, trust(genesis, accepted, staged, in_use=in_use))
    for operator, genesis, accepted, staged in itertools.product(DIGESTS, repeat=4)
    for in_use in (True, False)
]


def test_a_start_writes_only_what_the_operator_has_in_hand_and_never_over_an_accepted_genesis() -> None:
    for operator, state in ALL_STATES:
        action = decide_start(operator, state)
        if action.writes:
            assert operator is not None
            assert not state.agree
            assert state.genesis in {None, operator}


def test_a_start_goes_on_only_with_a_pair_that_agrees() -> None:
    for operator, state in ALL_STATES:
        if decide_start(operator, state) in {StartAction.GO_ON, StartAction.GO_ON_STAGED}:
            assert state.agree
            assert operator in {None, state.accepted, state.staged}
