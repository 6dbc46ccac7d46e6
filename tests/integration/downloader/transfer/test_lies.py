"""An origin whose answers are wrong: nothing wrong is kept, and no more is read than is pinned."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.downloader.transfer.outcomes import Completed, SourceFailed
from shared.states import FailureReason
from tests.support.downloader_process import sha256
from tests.support.origin_server import Answer, Script, in_turn, linked, ranged, redirect, status
from tests.support.transfer_bench import DATA, RANGE, Bench, content_range

MISMATCHES = [
    pytest.param({"X-Linked-Etag": '"' + "a" * 64 + '"'}, "pinned is", id="another digest"),
    pytest.param({"X-Linked-Size": len(DATA) + 1}, "pinned are", id="another size"),
]


@pytest.mark.parametrize(("wrong", "words"), MISMATCHES)
def test_what_upstream_says_is_compared_with_the_pin_before_any_byte(
    bench: Bench, wrong: dict[str, object], words: str
) -> None:
    bench.origin.scripts["/file"] = ranged(DATA, headers=linked(DATA, **wrong))
    outcome = bench.run()
    assert isinstance(outcome, SourceFailed)
    assert outcome.reason is FailureReason.UPSTREAM_MISMATCH
    assert words in outcome.message
    assert bench.origin.sent() == 0
    assert bench.origin.asked("/file") == []
    assert bench.attempts("upstream_mismatch") == 1


def test_a_file_larger_than_the_disk_space_that_is_pinned_is_refused(bench: Bench) -> None:
    bench.origin.scripts["/file"] = ranged(DATA, headers={"X-Repo-Commit": "x"})
    outcome = bench.run(bench.pin(size=None, required=len(DATA) - 1))
    assert isinstance(outcome, SourceFailed)
    assert outcome.reason is FailureReason.UPSTREAM_MISMATCH
    assert not bench.layout.data(sha256(DATA)).exists()


def _range_answer(change: Callable[[int, int], tuple[dict[str, object], bytes]], code: int = 206) -> Script:
    def script(answer: Answer) -> None:
        start, end = answer.seen.range or (0, len(DATA))
        headers, body = change(start, min(end, len(DATA)))
        answer.head(code, headers)
        answer.body(body)

    return script


LIES: list[tuple[str, Script]] = [
    ("shifted", _range_answer(lambda s, e: (content_range(s + 1, e + 1), DATA[s + 1 : e + 1]))),
    ("no Content-Range", _range_answer(lambda s, e: ({"Content-Length": e - s}, DATA[s:e]))),
    (
        "gzip",
        _range_answer(lambda s, e: ({**content_range(s, e), "Content-Encoding": "gzip"}, DATA[s:e])),
    ),
    ("short body", _range_answer(lambda s, e: (content_range(s, e), b""))),
    ("a page", status(200, {"Content-Type": "text/html"}, b"<html>sign in</html>")),
    ("HTTP 503", status(503)),
    ("HTTP 500", status(500)),
    ("HTTP 429", status(429)),
    ("a dead redirect", redirect("/nowhere-in-time", code=302)),
]


@pytest.mark.parametrize("lie", [lie for _, lie in LIES], ids=[name for name, _ in LIES])
def test_a_source_that_lies_is_given_up_after_five_failures_and_nothing_wrong_is_kept(
    bench: Bench, lie: Script
) -> None:
    bench.origin.scripts["/nowhere-in-time"] = status(403)
    bench.origin.scripts["/file"] = lambda answer: (status(200, linked(DATA)) if answer.seen.method == "HEAD" else lie)(
        answer
    )
    outcome = bench.run()
    assert isinstance(outcome, SourceFailed)
    assert outcome.reason is None
    assert bench.durable() == 0
    assert bench.failures == [1, 2, 3, 4, 5]
    assert len(bench.origin.asked("/file")) == 5


@pytest.mark.parametrize("lie", [lie for _, lie in LIES[:-1]], ids=[name for name, _ in LIES[:-1]])
def test_one_lie_in_the_middle_costs_a_retry_and_the_file_is_right(bench: Bench, lie: Script) -> None:
    right = ranged(DATA)
    bench.origin.scripts["/file"] = lambda answer: (
        status(200, linked(DATA))(answer) if answer.seen.method == "HEAD" else turns(answer)
    )
    turns = in_turn(right, right, lie, right)
    assert bench.run() == Completed(len(DATA))
    assert bench.is_complete()
    assert bench.attempts("transient") == 1


def test_an_endless_body_is_cut_at_the_pinned_size(bench: Bench) -> None:
    flood = bytes(8 * 1024 * 1024)

    def script(answer: Answer) -> None:
        if answer.seen.method == "HEAD":
            status(200)(answer)
            return
        answer.head(200)
        answer.body(DATA)
        for _ in range(50):
            answer.body(flood)

    bench.origin.scripts["/file"] = script
    assert bench.run() == Completed(len(DATA))  # the verifier judges; not one byte more than pinned was kept
    assert bench.layout.data(sha256(DATA)).stat().st_size == len(DATA)
    assert bench.origin.sent() < len(DATA) + 2 * len(flood)


def test_an_endless_range_is_cut_at_its_end(bench: Bench) -> None:
    def script(answer: Answer) -> None:
        start, end = answer.seen.range or (0, len(DATA))
        answer.head(206, {"Content-Range": f"bytes {start}-{min(end, len(DATA)) - 1}/{len(DATA)}"})
        answer.body(DATA[start:])
        answer.body(bytes(RANGE))

    bench.origin.scripts["/file"] = script
    assert bench.run() == Completed(len(DATA))
    assert bench.is_complete()


def test_a_size_that_changes_midway_is_a_mismatch(bench: Bench) -> None:
    right = ranged(DATA)
    bench.origin.scripts["/file"] = in_turn(
        status(200), right, _range_answer(lambda s, e: (content_range(s, e, len(DATA) + 1), DATA[s:e]))
    )
    outcome = bench.run()
    assert isinstance(outcome, SourceFailed)
    assert outcome.reason is FailureReason.UPSTREAM_MISMATCH
