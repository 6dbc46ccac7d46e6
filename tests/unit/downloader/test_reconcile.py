from __future__ import annotations

import pytest

from services.downloader.reconcile import (
    Action,
    AskVerdict,
    AwaitVerdict,
    EndRound,
    Fetch,
    History,
    IncomingData,
    Mismatch,
    Observation,
    Rest,
    Settle,
    next_action,
)
from shared.states import FailureReason, ModelState, Source
from shared.store.records import Control

NOW = 1_000_000.0
IMPORT, HF, IPFS = Source.IMPORT, Source.HUGGINGFACE, Source.IPFS
ALL = (IMPORT, HF, IPFS)
WRONG, OTHER = "a" * 64, "b" * 64
PARTIAL = IncomingData("g1", HF, size=100, durable=40, complete=False)
COMPLETE = IncomingData("g1", HF, size=100, durable=100, complete=True)
SUSPECT = Rest(ModelState.FAILED, FailureReason.HASH_MISMATCH)
SPENT = 5


def control(**changes: object) -> Control:
    return Control.model_validate(changes)


def seen(**changes: object) -> Observation:
    return Observation(**{"offered": (HF, IPFS), **changes})  # type: ignore[arg-type]


CASES: list[tuple[str, Observation, History, Action]] = [
    ("nothing there: Hugging Face first", seen(), History(), Fetch(HF)),
    ("a file that is already there comes before", seen(offered=ALL), History(), Fetch(IMPORT)),
    ("a partial goes on", seen(data=PARTIAL), History(), Fetch(HF)),
    ("verified", seen(verified_at=1.0), History(), Settle()),
    ("verified, whatever else lies there", seen(verified_at=1.0, data=COMPLETE, missing_bytes=9), History(), Settle()),
    ("verified, though paused", seen(verified_at=1.0), History(control(wish="paused")), Settle()),
    ("verified without a right receipt: ask", seen(unproven=True), History(), AskVerdict()),
    ("complete: ask", seen(data=COMPLETE), History(), AskVerdict()),
    ("complete, though paused: ask", seen(data=COMPLETE), History(control(wish="paused")), AskVerdict()),
    ("complete and the disk is full: ask", seen(data=COMPLETE, missing_bytes=5), History(), AskVerdict()),
    ("asked a moment ago: wait", seen(data=COMPLETE), History(asked_ago=19), AwaitVerdict()),
    ("asked long ago: ask again", seen(data=COMPLETE), History(asked_ago=20), AskVerdict()),
    (
        "asked long ago, but the verifier is at work",
        seen(data=COMPLETE),
        History(asked_ago=100, heard_ago=5),
        AwaitVerdict(),
    ),
    (
        "asked long ago, and the verifier fell silent",
        seen(data=COMPLETE),
        History(asked_ago=100, heard_ago=21),
        AskVerdict(),
    ),
    (
        "never asked, though an older generation was heard of",
        seen(data=COMPLETE),
        History(heard_ago=1),
        AskVerdict(),
    ),
    ("vetoed by the chain", seen(data=PARTIAL, vetoed=True), History(), Rest(ModelState.VETOED)),
    ("vetoed, whatever is wished", seen(vetoed=True), History(control(wish="paused")), Rest(ModelState.VETOED)),
    ("vetoed, though a local file is there", seen(offered=ALL, vetoed=True), History(), Rest(ModelState.VETOED)),
    ("vetoed while it runs", seen(running=HF, vetoed=True), History(), Rest(ModelState.VETOED)),
    ("verified, though vetoed", seen(verified_at=1.0, vetoed=True), History(), Settle()),
    ("complete, though vetoed: ask", seen(data=COMPLETE, vetoed=True), History(), AskVerdict()),
    ("the chain is unheard: wait", seen(unheard=True), History(), Rest(ModelState.ABSENT)),
    ("the chain is unheard, and paused", seen(unheard=True), History(control(wish="paused")), Rest(ModelState.PAUSED)),
    ("paused", seen(data=PARTIAL), History(control(wish="paused")), Rest(ModelState.PAUSED)),
    ("cancelled", seen(), History(control(wish="cancelled")), Rest(ModelState.FAILED, FailureReason.CANCELLED)),
    ("Hugging Face failed: IPFS", seen(), History(control(attempts={HF: SPENT})), Fetch(IPFS)),
    ("Hugging Face failed four times: again", seen(), History(control(attempts={HF: 4})), Fetch(HF)),
    (
        "all failed",
        seen(),
        History(control(attempts={HF: SPENT, IPFS: SPENT})),
        EndRound(FailureReason.SOURCE_UNAVAILABLE),
    ),
    (
        "the only one failed",
        seen(offered=(HF,)),
        History(control(attempts={HF: SPENT})),
        EndRound(FailureReason.SOURCE_UNAVAILABLE),
    ),
    (
        "all failed, one because upstream changed",
        seen(),
        History(control(attempts={HF: SPENT, IPFS: SPENT}, reason=FailureReason.UPSTREAM_MISMATCH)),
        EndRound(FailureReason.UPSTREAM_MISMATCH),
    ),
    (
        "too early for the next round",
        seen(),
        History(control(reason=FailureReason.SOURCE_UNAVAILABLE, next_attempt_at=NOW + 30, rounds=1)),
        Rest(ModelState.FAILED, FailureReason.SOURCE_UNAVAILABLE, NOW + 30),
    ),
    (
        "as late as a next round can be",
        seen(),
        History(control(reason=FailureReason.SOURCE_UNAVAILABLE, next_attempt_at=NOW + 3600, rounds=9)),
        Rest(ModelState.FAILED, FailureReason.SOURCE_UNAVAILABLE, NOW + 3600),
    ),
    (
        "later than that: the clock was set back",
        seen(),
        History(control(reason=FailureReason.SOURCE_UNAVAILABLE, next_attempt_at=NOW + 3601, rounds=9)),
        Fetch(HF),
    ),
    (
        "time for the next round",
        seen(),
        History(control(reason=FailureReason.SOURCE_UNAVAILABLE, next_attempt_at=NOW, rounds=1)),
        Fetch(HF),
    ),
    (
        "a file that appeared needs no waiting",
        seen(offered=ALL),
        History(control(reason=FailureReason.SOURCE_UNAVAILABLE, next_attempt_at=NOW + 30)),
        Fetch(IMPORT),
    ),
    (
        "but it does where there is no room",
        seen(offered=ALL),
        History(control(reason=FailureReason.DISK_FULL, next_attempt_at=NOW + 30)),
        Rest(ModelState.FAILED, FailureReason.DISK_FULL, NOW + 30),
    ),
    (
        "no room",
        seen(missing_bytes=7),
        History(turn_seconds=15),
        Rest(ModelState.FAILED, FailureReason.DISK_FULL, NOW + 15),
    ),
    (
        "room again",
        seen(missing_bytes=0, data=PARTIAL),
        History(control(reason=FailureReason.DISK_FULL, next_attempt_at=NOW - 1)),
        Fetch(HF),
    ),
    ("one mismatch costs one more try", seen(), History(mismatches=(Mismatch(HF, WRONG),)), Fetch(HF)),
    (
        "two mismatches: the next source's turn",
        seen(),
        History(mismatches=(Mismatch(HF, WRONG), Mismatch(HF, OTHER))),
        Fetch(IPFS),
    ),
    (
        "two sources with one wrong digest: the pin is suspect",
        seen(),
        History(mismatches=(Mismatch(HF, WRONG), Mismatch(IPFS, WRONG))),
        SUSPECT,
    ),
    (
        "two sources with different wrong digests: go on",
        seen(),
        History(mismatches=(Mismatch(HF, WRONG), Mismatch(HF, WRONG), Mismatch(IPFS, OTHER))),
        Fetch(IPFS),
    ),
    (
        "every source was wrong twice",
        seen(offered=(HF,)),
        History(mismatches=(Mismatch(HF, WRONG), Mismatch(HF, WRONG))),
        SUSPECT,
    ),
    (
        "one wrong twice, the other out of reach: the other is tried in the next round, too",
        seen(),
        History(control(attempts={IPFS: SPENT}), (Mismatch(HF, WRONG), Mismatch(HF, WRONG))),
        EndRound(FailureReason.SOURCE_UNAVAILABLE),
    ),
    (
        "wrong bytes that nobody owns up to count for all",
        seen(),
        History(mismatches=(Mismatch(None, WRONG), Mismatch(None, WRONG))),
        SUSPECT,
    ),
    (
        "all gateways together were wrong: each alone is asked",
        seen(ipfs_tries=3),
        History(control(attempts={HF: SPENT}), (Mismatch(IPFS, WRONG),)),
        Fetch(IPFS),
    ),
    (
        "one gateway alone was wrong, too: the next alone",
        seen(ipfs_tries=3),
        History(control(attempts={HF: SPENT}), (Mismatch(IPFS, WRONG),) * 2),
        Fetch(IPFS),
    ),
    (
        "the last source has failed for the last time, and its turn is not over yet",
        seen(running=IPFS),
        History(control(attempts={HF: SPENT, IPFS: SPENT})),
        Fetch(IPFS),
    ),
    (
        "every gateway had its turn",
        seen(offered=(IPFS,), ipfs_tries=3),
        History(mismatches=(Mismatch(IPFS, WRONG),) * 3),
        SUSPECT,
    ),
]


@pytest.mark.parametrize(("observation", "history", "action"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_next_action(observation: Observation, history: History, action: Action) -> None:
    assert next_action(observation, history, NOW) == action
