"""An origin that breaks, stalls, refuses or asks to wait: what is tried again, and when the turn ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.downloader.limits import Limits
from services.downloader.transfer.outcomes import Completed, SourceFailed
from shared.states import Source
from tests.support.origin_server import Answer, Hold, ScriptedOrigin, in_turn, linked, ranged, redirect, status
from tests.support.transfer_bench import DATA, FAST, RANGE, Bench, cut_after


def test_an_origin_without_ranges_that_always_breaks_comes_to_its_end(bench: Bench) -> None:
    def script(answer: Answer) -> None:
        answer.head(200, {"Content-Length": len(DATA)})
        answer.body(DATA[: 2 * RANGE])
        answer.cut()

    bench.origin.scripts["/file"] = script
    outcome = bench.run()
    assert isinstance(outcome, SourceFailed)
    assert len(bench.origin.asked("/file")) <= 1 + FAST.failures


def test_a_stalled_body_is_a_failure_that_keeps_what_came(bench: Bench) -> None:
    stall = Hold(after=RANGE // 2)
    bench.origin.scripts["/file"] = ranged(DATA, hold=stall)
    assert bench.run() == Completed(len(DATA))
    assert bench.is_complete()
    assert bench.attempts("transient") == 1
    assert bench.origin.asked("/file")[1].range == (RANGE // 2, RANGE // 2 + RANGE)


def test_silence_beyond_the_limit_ends_the_turn(tmp_path: Path, origin: ScriptedOrigin) -> None:
    limits = Limits(range_bytes=RANGE, first_byte_seconds=30, stall_seconds=30, quiet_seconds=1.0)
    bench = Bench(tmp_path, origin, limits=limits)
    hold = Hold(after=1)
    origin.scripts["/file"] = ranged(DATA, hold=hold)
    outcome = bench.run()
    assert isinstance(outcome, SourceFailed)
    assert "no new byte" in outcome.message


def test_an_expired_address_is_asked_for_again_and_costs_no_failure(bench: Bench) -> None:
    bench.origin.scripts["/file"] = in_turn(redirect("/a", linked(DATA)), redirect("/a"), redirect("/b"))
    bench.origin.scripts["/a"] = in_turn(ranged(DATA), ranged(DATA), status(403))
    bench.origin.scripts["/b"] = ranged(DATA)
    assert bench.run() == Completed(len(DATA))
    assert bench.is_complete()
    assert bench.failures == []
    assert len(bench.origin.asked("/a")) == 3


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_permanent_refusal_is_not_repeated(bench: Bench, code: int) -> None:
    bench.origin.scripts["/file"] = status(code)
    outcome = bench.run()
    assert isinstance(outcome, SourceFailed)
    assert str(code) in outcome.message
    assert len(bench.origin.requests) == 1
    assert bench.attempts("permanent") == 1


def test_of_several_gateways_the_next_one_goes_on_where_one_breaks(bench: Bench) -> None:
    bench.origin.scripts["/one"] = cut_after(RANGE, {})
    bench.origin.scripts["/two"] = ranged(DATA)
    bench.origin.scripts["/three"] = status(404)
    assert bench.run(paths=("/three", "/one", "/two"), source=Source.IPFS) == Completed(len(DATA))
    assert bench.is_complete()
    assert bench.origin.asked("/two")[0].range == (RANGE, 2 * RANGE)
    assert bench.origin.sent() == len(DATA)


def test_a_wait_that_a_server_asks_for_is_not_begun_when_it_is_too_long(bench: Bench) -> None:
    bench.origin.scripts["/file"] = status(429, {"Retry-After": 3600})
    outcome = bench.run()
    assert isinstance(outcome, SourceFailed)
    assert "3600" in outcome.message
    assert len(bench.origin.requests) == 1
