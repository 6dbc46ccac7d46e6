"""The engine's end of a grammar's process, with the test at the other end: it never waits long and never breaks."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from services.miner.engine.messages import Submit
from services.miner.engine.openings import Openings
from services.miner.grammar import matcher as module
from services.miner.grammar.matcher import ConstraintError, Matcher
from services.miner.grammar.wire import ACCEPT, NO, PROPOSE, TOKEN, YES, Constraint

TOKENS = 20


def pair() -> tuple[Matcher, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Matcher(ours, TOKENS), theirs


def opened() -> tuple[Matcher, socket.socket]:
    matcher, process = pair()
    process.send(YES)
    assert matcher.opened()
    return matcher, process


def test_a_constraint_is_not_open_before_its_process_says_so() -> None:
    matcher, process = pair()
    assert not matcher.opened()
    process.send(YES)
    assert matcher.opened()


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda process: process.send(NO + b"no such rule"), "no such rule"),
        (lambda process: process.close(), "time or memory"),
        (lambda process: process.send(b"?"), "time or memory"),
    ],
)
def test_a_process_that_refuses_or_dies_refuses_the_request(
    act: Callable[[socket.socket], object], reason: str
) -> None:
    matcher, process = pair()
    act(process)
    with pytest.raises(ConstraintError, match=reason):
        matcher.opened()


def test_a_process_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN_SECONDS", -1.0)
    matcher, _process = pair()
    with pytest.raises(ConstraintError, match="not parsed in time"):
        matcher.opened()


def test_a_token_is_taken_or_others_are_offered() -> None:
    matcher, process = opened()
    matcher.propose(7)
    assert TOKEN.unpack(process.recv(100)) == (PROPOSE, 7)
    process.send(YES)
    assert matcher.answer() is None
    allowed = np.zeros(TOKENS, np.bool_)
    allowed[[3, 19]] = True
    matcher.propose(8)
    process.recv(100)
    process.send(NO + np.packbits(allowed).tobytes())
    offered = matcher.answer()
    assert offered is not None
    assert list(np.flatnonzero(offered)) == [3, 19]
    matcher.accept(19)
    assert TOKEN.unpack(process.recv(100)) == (ACCEPT, 19)


def test_a_process_that_died_is_noticed_by_the_next_answer_and_by_nothing_else() -> None:
    matcher, process = opened()
    process.close()
    matcher.accept(1)
    matcher.propose(1)
    with pytest.raises(ConstraintError, match="time or memory"):
        matcher.answer()
    matcher.close()
    matcher.close()


def test_an_answer_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.01)
    matcher, _process = opened()
    matcher.propose(1)
    with pytest.raises(ConstraintError, match="time or memory"):
        matcher.answer()


def test_answers_that_are_all_a_little_slow_are_too_slow_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FREE_SECONDS", 10.0)
    matcher, process = opened()
    clock = itertools.count()  # each look is a second after the one before
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))

    def slow_answer() -> None:
        process.send(YES)
        matcher.answer()

    for _ in range(10):
        slow_answer()
    with pytest.raises(ConstraintError, match="time or memory"):
        slow_answer()


def submit(name: str) -> Submit:
    return Submit(name, (1,), 5, constraint=Constraint("grammar", "root ::= x"))


def test_requests_join_the_queue_as_their_constraints_are_decided() -> None:
    openings = Openings()
    made = {name: pair() for name in ("good", "bad", "slow", "gone")}
    for name, (matcher, _) in made.items():
        openings.add(submit(name), matcher)
    assert openings.settled(wait=True) == []
    made["good"][1].send(YES)
    made["bad"][1].send(NO + b"why")
    openings.cancel("gone")
    openings.cancel("never came")
    decided = {request.request_id: result for request, result in openings.settled(wait=True)}
    assert decided == {"good": made["good"][0], "bad": "why"}
    assert len(openings) == 1
    assert made["gone"][1].recv(1) == b""  # its process is told
    assert made["bad"][1].recv(1) == b""
