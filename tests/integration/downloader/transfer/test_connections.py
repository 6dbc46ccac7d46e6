"""Several connections on one file, over real HTTP: what they ask for, and what one that breaks costs the others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from services.downloader.interrupt import Interrupt, Reason
from services.downloader.transfer.incoming import read_journal
from services.downloader.transfer.outcomes import Completed, Interrupted, Outcome, SourceFailed
from shared.states import Source
from tests.support.downloader_process import sha256
from tests.support.origin_server import (
    Answer,
    Hold,
    Script,
    ScriptedOrigin,
    in_turn,
    linked,
    ranged,
    redirect,
    status,
    whole,
)
from tests.support.transfer_bench import DATA, RANGE, Bench, content_range
from tests.support.waiting import wait_until


@pytest.fixture
def crew(bench: Bench) -> Bench:
    bench.connections = 4
    return bench


def by_start(special: dict[int, Script], other: Script) -> Script:
    """Answer the first request for a range that begins at a given byte by its own script."""
    left = dict(special)

    def script(answer: Answer) -> None:
        start = answer.seen.range[0] if answer.seen.range and answer.seen.method == "GET" else -1
        left.pop(start, other)(answer)

    return script


def starts(bench: Bench) -> list[int]:
    return [seen.range[0] for seen in bench.origin.asked("/file") if seen.range]


def part_bytes(bench: Bench) -> int:
    """The size of the ranges that four connections ask for."""
    return max(len(DATA) // 16, bench.limits.least_range_bytes)


def test_every_byte_is_asked_for_once_by_several_connections(crew: Bench) -> None:
    crew.origin.scripts["/file"] = ranged(DATA, headers=linked(DATA))
    assert crew.run() == Completed(len(DATA))
    assert crew.is_complete()
    assert sum(seen.range[1] - seen.range[0] for seen in crew.origin.asked("/file") if seen.range) >= len(DATA)
    assert sorted(starts(crew))[:3] == [0, part_bytes(crew), 2 * part_bytes(crew)]


def test_the_first_range_comes_alone_and_then_the_others_together(crew: Bench) -> None:
    """A server that cannot do ranges is asked for one, not for eight whole files."""
    first, rest = Hold(after=1), Hold(after=1)
    right = ranged(DATA)

    def script(answer: Answer) -> None:
        if answer.seen.method == "HEAD":
            status(200, linked(DATA))(answer)
            return
        (first if answer.seen.range and answer.seen.range[0] == 0 else rest).wait(answer.closing)
        right(answer)

    crew.origin.scripts["/file"] = script
    thread = threading.Thread(target=crew.run)
    thread.start()
    assert first.reached.wait(20)
    assert len(crew.origin.asked("/file")) == 1
    first.release()
    wait_until(lambda: len(crew.origin.asked("/file")) == 1 + crew.connections, what="all four connections at once")
    rest.release()
    thread.join(20)
    assert crew.is_complete()


def test_redirects_are_followed_once_for_all_connections(crew: Bench) -> None:
    crew.origin.scripts["/file"] = redirect("/cdn", linked(DATA))
    crew.origin.scripts["/cdn"] = ranged(DATA)
    assert crew.run() == Completed(len(DATA))
    assert len(crew.origin.asked("/file")) == 1


def test_an_address_that_expires_for_all_at_once_is_resolved_again_and_costs_no_failure(crew: Bench) -> None:
    expired = threading.Event()

    def old(answer: Answer) -> None:
        (status(403) if expired.is_set() else ranged(DATA))(answer)
        if answer.seen.range and answer.seen.range[0] >= len(DATA) // 2:
            expired.set()

    def first(answer: Answer) -> None:
        redirect("/new" if expired.is_set() else "/old", linked(DATA))(answer)

    crew.origin.scripts["/file"] = first
    crew.origin.scripts["/old"] = old
    crew.origin.scripts["/new"] = ranged(DATA)
    assert crew.run() == Completed(len(DATA))
    assert crew.is_complete()
    assert crew.failures == []


BREAKS: list[tuple[str, Script]] = [
    ("a reset", lambda answer: (answer.head(206, content_range(*_range(answer))), answer.cut())[0]),
    ("a 503", status(503)),
    ("a shifted range", lambda answer: answer.head(206, content_range(0, 5))),
    ("a whole file", whole(DATA)),
]


def _range(answer: Answer) -> tuple[int, int]:
    assert answer.seen.range is not None
    return answer.seen.range


@pytest.mark.parametrize("broken", [script for _, script in BREAKS], ids=[name for name, _ in BREAKS])
def test_one_broken_answer_costs_one_connection_a_retry_and_nobody_else_anything(crew: Bench, broken: Script) -> None:
    third = 3 * part_bytes(crew)
    crew.origin.scripts["/file"] = by_start({third: broken}, ranged(DATA, headers=linked(DATA)))
    assert crew.run() == Completed(len(DATA))
    assert crew.is_complete()
    assert crew.attempts("transient") == 1
    journal = read_journal(crew.layout, sha256(DATA))
    assert journal is not None


def test_a_source_that_ignores_ranges_again_and_again_is_taken_at_its_word(crew: Bench) -> None:
    """The first two ranges are honoured, afterwards the whole file comes whatever is asked for."""
    right, first = ranged(DATA), [True]

    def script(answer: Answer) -> None:
        if answer.seen.method == "HEAD":
            status(200, linked(DATA))(answer)
        elif first and answer.seen.range and answer.seen.range[0] == 0:
            first.clear()
            right(answer)
        else:
            whole(DATA)(answer)

    crew.origin.scripts["/file"] = script
    assert crew.run() == Completed(len(DATA))
    assert crew.is_complete()
    assert crew.origin.asked("/file")[-1].range == (0, len(DATA))


def test_a_server_without_ranges_is_asked_by_one_connection(crew: Bench) -> None:
    crew.origin.scripts["/file"] = whole(DATA, headers=linked(DATA))
    assert crew.run() == Completed(len(DATA))
    assert crew.is_complete()
    assert len(crew.origin.asked("/file")) == 1
    assert crew.origin.sent() == len(DATA)


def test_connections_that_are_all_refused_fail_together_and_five_times_is_the_end(crew: Bench) -> None:
    started = threading.Event()

    def script(answer: Answer) -> None:
        if answer.seen.method == "HEAD":
            status(200, linked(DATA))(answer)
        elif not started.is_set():
            started.set()
            ranged(DATA)(answer)
        else:
            status(500)(answer)

    crew.origin.scripts["/file"] = script
    outcome = crew.run()
    assert isinstance(outcome, SourceFailed)
    assert crew.failures[-1] == 5
    assert len(crew.origin.asked("/file")) <= 1 + 5 * crew.connections
    assert crew.durable() == part_bytes(crew)


def test_too_many_requests_lead_to_fewer_connections(crew: Bench) -> None:
    """The server serves two at a time and says 429 to the rest."""
    busy, most, lock = 0, 0, threading.Lock()
    right = ranged(DATA)

    def script(answer: Answer) -> None:
        nonlocal busy, most
        if answer.seen.method == "HEAD":
            status(200, linked(DATA))(answer)
            return
        with lock:
            refused = busy >= 2
            busy += 0 if refused else 1
        if refused:
            status(429)(answer)
            return
        try:
            right(answer)
        finally:
            with lock:
                busy -= 1

    crew.origin.scripts["/file"] = script
    assert crew.run() == Completed(len(DATA))
    assert crew.is_complete()


def test_a_long_wait_that_one_connection_is_asked_for_does_not_stop_the_others(crew: Bench) -> None:
    part = part_bytes(crew)
    hold = Hold(after=part // 2)
    wait = status(429, {"Retry-After": 3600})

    def refuse(answer: Answer) -> None:
        wait_until(lambda: crew.received() >= part + part // 2, what="somebody to be at work")
        wait(answer)

    right = ranged(DATA, headers=linked(DATA))
    crew.origin.scripts["/file"] = by_start({part: ranged(DATA, hold=hold), 3 * part: refuse}, right)
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(crew.run()))
    thread.start()
    wait_until(lambda: crew.attempts("transient") == 1, what="the refusal")
    hold.release()
    thread.join(20)
    assert outcomes == [Completed(len(DATA))]
    assert crew.is_complete()
    assert crew.failures == []


def test_a_connection_that_hangs_is_relieved_by_another(crew: Bench) -> None:
    """One range brings half of its bytes and then nothing: it neither delays the file nor is it a failure."""
    hang = Hold(after=part_bytes(crew) // 2)
    crew.limits = replace(crew.limits, stall_seconds=60.0, least_range_bytes=1024)
    crew.origin.scripts["/file"] = by_start(
        {part_bytes(crew): ranged(DATA, hold=hang)}, ranged(DATA, headers=linked(DATA))
    )
    assert crew.run() == Completed(len(DATA))
    assert hang.reached.is_set()
    assert crew.is_complete()
    assert crew.failures == []


def test_a_stop_reaches_every_connection_and_what_came_is_kept(crew: Bench) -> None:
    hold = Hold(after=len(DATA) // 2)
    crew.origin.scripts["/file"] = ranged(DATA, hold=hold, headers=linked(DATA))
    outcomes: list[Outcome] = []
    before = threading.active_count()
    thread = threading.Thread(target=lambda: outcomes.append(crew.run()))
    thread.start()
    assert hold.reached.wait(20)
    crew.interrupt.tell(Reason.SHUTDOWN)
    thread.join(20)
    assert outcomes == [Interrupted(Reason.SHUTDOWN)]
    hold.release()
    journal = read_journal(crew.layout, sha256(DATA))
    assert journal is not None
    kept = sum(end - start for start, end in journal.ranges)
    assert kept > 0
    sent = crew.origin.sent()
    crew.interrupt = Interrupt()
    assert crew.run() == Completed(len(DATA))
    assert crew.is_complete()
    assert crew.origin.sent() - sent <= len(DATA) - kept + part_bytes(crew)
    wait_until(lambda: threading.active_count() <= before + crew.connections, what="the lanes to end")


def test_ranges_are_spread_over_gateways_and_a_dead_one_sinks(crew: Bench) -> None:
    crew.spread = True
    crew.origin.scripts["/one"] = ranged(DATA)
    crew.origin.scripts["/two"] = ranged(DATA)
    crew.origin.scripts["/dead"] = status(504)
    assert crew.run(paths=("/one", "/dead", "/two"), source=Source.IPFS) == Completed(len(DATA))
    assert crew.is_complete()
    assert crew.origin.asked("/one")
    assert crew.origin.asked("/two")
    assert len(crew.origin.asked("/dead")) <= crew.connections


def test_a_gateway_that_ignores_ranges_costs_nothing_of_what_another_brought(crew: Bench) -> None:
    crew.spread = True
    crew.origin.scripts["/right"] = ranged(DATA)
    crew.origin.scripts["/whole"] = whole(DATA)
    assert crew.run(paths=("/right", "/whole"), source=Source.IPFS) == Completed(len(DATA))
    assert crew.is_complete()
    assert crew.origin.asked("/whole"), "it was tried"
    assert crew.origin.sent("/right") == len(DATA)


def test_after_a_mismatch_one_gateway_alone_is_asked(crew: Bench) -> None:
    for path in ("/one", "/two"):
        crew.origin.scripts[path] = ranged(DATA)
    assert crew.run(paths=("/one", "/two"), source=Source.IPFS) == Completed(len(DATA))
    assert crew.origin.asked("/two") == []


def test_the_address_is_pinned_to_the_commit_that_preflight_found(crew: Bench) -> None:
    commit = "c" * 40
    facts = linked(DATA, **{"X-Repo-Commit": commit})
    crew.origin.scripts["/o/r/resolve/main/f.gguf"] = ranged(DATA, headers=facts)
    crew.origin.scripts[f"/o/r/resolve/{commit}/f.gguf"] = ranged(DATA, headers=facts)
    assert crew.run(paths=("/o/r/resolve/main/f.gguf",)) == Completed(len(DATA))
    assert crew.origin.asked("/o/r/resolve/main/f.gguf") == []
    assert crew.origin.sent(f"/o/r/resolve/{commit}/f.gguf") == len(DATA)


def test_a_mirror_that_knows_no_commits_is_asked_by_the_branch(crew: Bench) -> None:
    facts = linked(DATA, **{"X-Repo-Commit": "c" * 40})
    crew.origin.scripts["/o/r/resolve/main/f.gguf"] = ranged(DATA, headers=facts)
    assert crew.run(paths=("/o/r/resolve/main/f.gguf",)) == Completed(len(DATA))
    assert crew.is_complete()


def _moved(**later: object) -> Callable[[Bench], Outcome]:
    """Preflight sees one file, every later answer tells of another."""

    def run(bench: Bench) -> Outcome:
        bench.origin.scripts["/file"] = in_turn(
            status(200, linked(DATA)), ranged(DATA, headers={"X-Repo-Commit": "d" * 40, **later})
        )
        return bench.run()

    return run


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(_moved(), id="another commit"),
        pytest.param(_moved(**{"X-Linked-Etag": '"' + "a" * 64 + '"'}), id="another digest"),
        pytest.param(_moved(**{"X-Linked-Size": len(DATA) + 1}), id="another size"),
    ],
)
def test_an_upstream_that_moves_on_while_the_file_comes_is_noticed(
    crew: Bench, run: Callable[[Bench], Outcome]
) -> None:
    outcome = run(crew)
    assert isinstance(outcome, SourceFailed)
    assert outcome.reason == "upstream_mismatch"


def test_another_commit_with_the_same_file_is_no_reason_to_stop(crew: Bench) -> None:
    moved = linked(DATA, **{"X-Repo-Commit": "d" * 40})
    crew.origin.scripts["/file"] = in_turn(status(200, linked(DATA)), ranged(DATA, headers=moved))
    assert crew.run() == Completed(len(DATA))


def test_a_trickle_is_given_up(bench: Bench, origin: ScriptedOrigin) -> None:
    """It is never silent for long and would take for ever."""
    bench.limits = replace(bench.limits, quiet_seconds=1.5, stall_seconds=30.0, least_bytes_per_second=10_000)

    def script(answer: Answer) -> None:
        answer.head(206, content_range(0, RANGE))
        pause = threading.Event()
        for byte in range(RANGE):
            if answer.closing.is_set():
                return
            answer.body(DATA[byte : byte + 1])
            pause.wait(0.1)

    origin.scripts["/file"] = lambda answer: (
        status(200, linked(DATA))(answer) if answer.seen.method == "HEAD" else script(answer)
    )
    outcome = bench.run()
    assert isinstance(outcome, SourceFailed)
    assert "bytes/s" in outcome.message


def test_a_connection_is_used_for_range_after_range(bench: Bench) -> None:
    bench.origin.scripts["/file"] = ranged(DATA, headers=linked(DATA))
    assert bench.run() == Completed(len(DATA))
    assert len(bench.origin.asked("/file")) == -(-len(DATA) // RANGE)
    assert bench.origin.connections == 2  # one for HEAD, whose answer is never trusted to have no body
