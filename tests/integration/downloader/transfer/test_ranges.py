"""What is asked of an origin: bounded ranges from where the journal ends, and nothing twice."""

from __future__ import annotations

import threading

from services.downloader.interrupt import Interrupt, Reason
from services.downloader.transfer.incoming import read_journal
from services.downloader.transfer.outcomes import Completed, Interrupted, Outcome
from tests.support.downloader_process import sha256
from tests.support.origin_server import Answer, Hold, linked, ranged, redirect, status, whole
from tests.support.transfer_bench import DATA, RANGE, Bench, cut_after
from tests.support.waiting import wait_until


def test_a_file_comes_in_bounded_ranges_over_a_redirect_that_is_followed_once(bench: Bench) -> None:
    bench.origin.scripts["/file"] = redirect("/cdn", linked(DATA))
    bench.origin.scripts["/cdn"] = ranged(DATA)
    assert bench.run() == Completed(len(DATA))
    assert bench.is_complete()
    asked = [seen.range for seen in bench.origin.asked("/cdn")]
    assert asked == [(start, min(start + RANGE, len(DATA))) for start in range(0, len(DATA), RANGE)]
    assert len(bench.origin.asked("/file")) == 1
    assert len(bench.origin.asked("/file", "HEAD")) == 1
    assert bench.origin.sent() == len(DATA)
    assert not bench.layout.lease(sha256(DATA)).exists()


def test_every_request_asks_for_plain_bytes(bench: Bench) -> None:
    bench.origin.scripts["/file"] = ranged(DATA)
    bench.run()
    assert {seen.headers["accept-encoding"] for seen in bench.origin.requests} == {"identity"}


def test_the_size_is_learnt_from_the_first_range_when_nobody_told_it(bench: Bench) -> None:
    bench.origin.scripts["/file"] = ranged(DATA)
    assert bench.run(bench.pin(size=None)) == Completed(len(DATA))
    assert bench.is_complete()


def test_an_origin_without_head_is_asked_otherwise(bench: Bench) -> None:
    def script(answer: Answer) -> None:
        (status(405) if answer.seen.method == "HEAD" else ranged(DATA, headers=linked(DATA)))(answer)

    bench.origin.scripts["/file"] = script
    assert bench.run() == Completed(len(DATA))


def test_a_resume_asks_only_for_what_is_missing(bench: Bench) -> None:
    hold = Hold(after=3 * RANGE)
    bench.origin.scripts["/file"] = ranged(DATA, hold=hold, headers=linked(DATA))
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(bench.run()))
    thread.start()
    assert hold.reached.wait(20)
    wait_until(lambda: bench.durable() >= 2 * RANGE, what="durable ranges")
    bench.interrupt.tell(Reason.SHUTDOWN)
    thread.join(20)
    assert outcomes == [Interrupted(Reason.SHUTDOWN)]
    kept = bench.durable()
    assert kept >= 2 * RANGE

    hold.release()
    before = bench.origin.sent()
    bench.interrupt = Interrupt()
    assert bench.run() == Completed(len(DATA))
    assert bench.is_complete()
    assert bench.origin.sent() - before == len(DATA) - kept


def test_a_changed_revision_is_not_mixed_with_what_is_there(bench: Bench) -> None:
    bench.origin.scripts["/file"] = cut_after(2 * RANGE, linked(DATA))
    bench.run(attempts=4)
    assert bench.durable() > 0
    bench.origin.scripts["/file"] = ranged(DATA, headers=linked(DATA, **{"X-Repo-Commit": "f" * 40}))
    begun = len(bench.origin.requests)
    assert bench.run() == Completed(len(DATA))
    first = next(seen for seen in bench.origin.requests[begun:] if seen.method == "GET")
    assert first.range == (0, RANGE)


def test_data_whose_last_byte_is_durable_needs_no_source(bench: Bench) -> None:
    bench.origin.scripts["/file"] = ranged(DATA)
    bench.run()
    digest = sha256(DATA)
    journal = read_journal(bench.layout, digest)
    assert journal is not None
    journal.model_copy(update={"complete": False}).write(bench.layout.journal(digest))
    bench.origin.scripts["/file"] = status(404)
    assert bench.run() == Completed(len(DATA))
    assert bench.is_complete()


def test_a_200_answer_to_a_range_request_restarts_the_file(bench: Bench) -> None:
    """It begins a new generation and streams from 0; nothing is appended to what was there."""
    bench.origin.scripts["/file"] = cut_after(2 * RANGE, linked(DATA))
    bench.run(attempts=4)
    before = read_journal(bench.layout, sha256(DATA))
    assert before is not None
    bench.origin.scripts["/file"] = whole(DATA, headers=linked(DATA))
    assert bench.run() == Completed(len(DATA))
    assert bench.is_complete()
    after = read_journal(bench.layout, sha256(DATA))
    assert after is not None
    assert after.generation != before.generation
    assert bench.origin.asked("/file")[-1].range == (before.durable_prefix, before.durable_prefix + RANGE)
