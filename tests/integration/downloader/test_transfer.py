"""One source's turn against an origin that lies: real HTTP, real files, short waits."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.downloader.interrupt import Interrupt, Reason
from services.downloader.limits import Limits
from services.downloader.metrics import DownloaderMetrics
from services.downloader.sources.base import ByteSource
from services.downloader.sources.connection import Gate
from services.downloader.sources.pacing import Pace
from services.downloader.sources.web import Web, WebSource
from services.downloader.transfer.incoming import read_journal
from services.downloader.transfer.lease import Identity, LeaseKeeper
from services.downloader.transfer.outcomes import (
    Completed,
    Interrupted,
    LeaseTaken,
    LocalTrouble,
    NoRoom,
    Outcome,
    SourceFailed,
)
from services.downloader.transfer.progress import Progress
from services.downloader.transfer.space import Room
from services.downloader.transfer.transfer import Transfer, Workshop
from shared.addresses import AddressPolicy
from shared.genesis import ModelPin
from shared.states import FailureReason, Source
from shared.store.layout import StoreLayout
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
from tests.support.waiting import wait_until

RANGE = 64 * 1024
DATA = os.urandom(5 * RANGE + 123)
FAST = Limits(
    range_bytes=RANGE,
    buffer_bytes=16 * 1024,
    journal_seconds=0.0,
    connect_seconds=2.0,
    first_byte_seconds=1.0,
    stall_seconds=0.5,
    quiet_seconds=20.0,
    first_wait_seconds=0.01,
    longest_wait_seconds=0.05,
)
PLENTY = Room(free=10**12)


@dataclass
class Bench:
    """A store and what is needed to run transfers on it."""

    root: Path
    origin: ScriptedOrigin
    limits: Limits = FAST
    room: Room = PLENTY
    failures: list[int] = field(default_factory=list)
    interrupt: Interrupt = field(default_factory=Interrupt)
    keeper: LeaseKeeper = field(default_factory=lambda: LeaseKeeper(Identity.of_this_process()))

    def __post_init__(self) -> None:
        self.layout = StoreLayout(self.root)
        self.layout.incoming.mkdir(exist_ok=True)
        self.metrics = DownloaderMetrics(CollectorRegistry(), self.root)

    def pin(self, *, size: int | None = len(DATA), required: int = len(DATA)) -> ModelPin:
        return ModelPin("Tiny", "tiny.gguf", f"{self.origin.url}/file", sha256(DATA), required / 10**9, "", size)

    def run(
        self,
        pin: ModelPin | None = None,
        *,
        paths: tuple[str, ...] = ("/file",),
        source: Source = Source.HUGGINGFACE,
        environ: dict[str, str] | None = None,
        token: str | None = None,
        attempts: int = 0,
    ) -> Outcome:
        allowed = {"R3MES_ALLOW_HTTP_SOURCES": self.origin.host, **(environ or {})}
        gate = Gate(AddressPolicy.from_environ(allowed), self.interrupt, self.limits.stall_seconds)
        web = Web(gate, self.limits, Pace(None), token)
        facts = source is Source.HUGGINGFACE
        places: list[ByteSource] = [WebSource(source, self._url(path), web, has_facts=facts) for path in paths]
        try:
            return Transfer(
                shop=Workshop(self.layout, self.keeper, self.limits, self.metrics, lambda _: self.room),
                pin=pin or self.pin(),
                source=source,
                places=places,
                interrupt=self.interrupt,
                progress=Progress(source),
                attempts=attempts,
                on_failures=self.failures.append,
            ).run()
        finally:
            web.close()

    def _url(self, path: str) -> str:
        return path if path.startswith("http") else f"{self.origin.url}{path}"

    @property
    def data(self) -> bytes:
        return self.layout.data(sha256(DATA)).read_bytes()

    def is_complete(self) -> bool:
        journal = read_journal(self.layout, sha256(DATA))
        return journal is not None and journal.complete and self.data == DATA

    def durable(self) -> int:
        journal = read_journal(self.layout, sha256(DATA))
        return journal.durable_prefix if journal else 0

    def attempts(self, outcome: str) -> float:
        labels = {"source": "huggingface", "outcome": outcome}
        return self.metrics.registry.get_sample_value("r3mes_download_attempts_total", labels) or 0.0


@pytest.fixture
def origin() -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin() as origin:
        yield origin


@pytest.fixture
def bench(tmp_path: Path, origin: ScriptedOrigin) -> Bench:
    return Bench(tmp_path, origin)


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
    bench.origin.scripts["/file"] = _cut_after(2 * RANGE, linked(DATA))
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
    bench.origin.scripts["/file"] = _cut_after(2 * RANGE, linked(DATA))
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


def test_an_origin_without_ranges_that_always_breaks_comes_to_its_end(bench: Bench) -> None:
    def script(answer: Answer) -> None:
        answer.head(200, {"Content-Length": len(DATA)})
        answer.body(DATA[: 2 * RANGE])
        answer.cut()

    bench.origin.scripts["/file"] = script
    outcome = bench.run()
    assert isinstance(outcome, SourceFailed)
    assert len(bench.origin.asked("/file")) <= 1 + FAST.failures


def _cut_after(count: int, headers: dict[str, object]) -> Script:
    """Serve ranges rightly until `count` bytes have left, then cut every body at once."""
    left = [count]

    def script(answer: Answer) -> None:
        start, end = answer.seen.range or (0, len(DATA))
        end = min(end, len(DATA))
        extra = {"Content-Range": f"bytes {start}-{end - 1}/{len(DATA)}", "Content-Length": end - start}
        answer.head(206, {**extra, **headers})
        now = min(left[0], end - start)
        answer.body(DATA[start : start + now])
        if answer.seen.method != "HEAD":
            left[0] -= now
            if now < end - start:
                answer.cut()

    return script


def _range_answer(change: Callable[[int, int], tuple[dict[str, object], bytes]], code: int = 206) -> Script:
    def script(answer: Answer) -> None:
        start, end = answer.seen.range or (0, len(DATA))
        headers, body = change(start, min(end, len(DATA)))
        answer.head(code, headers)
        answer.body(body)

    return script


def _content_range(start: int, end: int, size: int = len(DATA)) -> dict[str, object]:
    return {"Content-Range": f"bytes {start}-{end - 1}/{size}", "Content-Length": end - start}


LIES: list[tuple[str, Script]] = [
    ("shifted", _range_answer(lambda s, e: (_content_range(s + 1, e + 1), DATA[s + 1 : e + 1]))),
    ("no Content-Range", _range_answer(lambda s, e: ({"Content-Length": e - s}, DATA[s:e]))),
    (
        "gzip",
        _range_answer(lambda s, e: ({**_content_range(s, e), "Content-Encoding": "gzip"}, DATA[s:e])),
    ),
    ("short body", _range_answer(lambda s, e: (_content_range(s, e), b""))),
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
        status(200), right, _range_answer(lambda s, e: (_content_range(s, e, len(DATA) + 1), DATA[s:e]))
    )
    outcome = bench.run()
    assert isinstance(outcome, SourceFailed)
    assert outcome.reason is FailureReason.UPSTREAM_MISMATCH


def test_a_stalled_body_is_a_failure_that_keeps_what_came(bench: Bench) -> None:
    stall = Hold(after=RANGE // 2)
    bench.origin.scripts["/file"] = ranged(DATA, hold=stall)
    assert bench.run() == Completed(len(DATA))
    assert bench.is_complete()
    assert bench.attempts("transient") == 1
    assert bench.origin.asked("/file")[1].range == (RANGE // 2, RANGE // 2 + RANGE)


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
    bench.origin.scripts["/one"] = _cut_after(RANGE, {})
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


def test_silence_beyond_the_limit_ends_the_turn(tmp_path: Path, origin: ScriptedOrigin) -> None:
    limits = Limits(range_bytes=RANGE, first_byte_seconds=30, stall_seconds=30, quiet_seconds=1.0)
    bench = Bench(tmp_path, origin, limits=limits)
    hold = Hold(after=1)
    origin.scripts["/file"] = ranged(DATA, hold=hold)
    outcome = bench.run()
    assert isinstance(outcome, SourceFailed)
    assert "no new byte" in outcome.message


def test_no_room_is_found_before_any_byte(tmp_path: Path, origin: ScriptedOrigin) -> None:
    bench = Bench(tmp_path, origin, room=Room(free=len(DATA)))
    origin.scripts["/file"] = ranged(DATA, headers=linked(DATA))
    outcome = bench.run()
    assert isinstance(outcome, NoRoom)
    assert origin.sent() == 0
    assert not bench.layout.data(sha256(DATA)).exists()


def test_a_store_that_cannot_be_written_blames_no_source(bench: Bench) -> None:
    bench.origin.scripts["/file"] = ranged(DATA)
    bench.layout.incoming.rmdir()
    bench.layout.incoming.write_bytes(b"a file where a directory belongs")
    assert isinstance(bench.run(), LocalTrouble)
    assert bench.failures == []


def test_a_second_writer_stays_out(bench: Bench) -> None:
    bench.origin.scripts["/file"] = ranged(DATA)
    directory = bench.layout.incoming_dir(sha256(DATA))
    directory.mkdir()
    other = LeaseKeeper(Identity("another-host", "b", "p", 1, "2" * 32))
    other.acquire(bench.layout.lease(sha256(DATA)))
    assert bench.run() == LeaseTaken()
    assert bench.origin.requests == []


def test_a_writer_that_lost_its_lease_stops_writing(bench: Bench) -> None:
    hold = Hold(after=2 * RANGE)
    bench.origin.scripts["/file"] = ranged(DATA, hold=hold)
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(bench.run()))
    thread.start()
    assert hold.reached.wait(20)
    path = bench.layout.lease(sha256(DATA))
    path.unlink()
    other = LeaseKeeper(Identity("another-host", "b", "p", 1, "2" * 32)).acquire(path)
    before = bench.layout.journal(sha256(DATA)).read_bytes()
    hold.release()
    thread.join(20)
    assert outcomes == [Interrupted(Reason.LEASE_LOST)]
    assert bench.layout.journal(sha256(DATA)).read_bytes() == before
    assert other is not None
    assert path.exists()


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest",
        "http://10.0.0.1/x",
        "https://127.0.0.1/x",
        "http://localhost:9/x",
        "http://huggingface.co/x",
        "ftp://x/y",
        "https://user:secret@huggingface.co/x",
        "https://[/",
        "https://huggingface.co:99999/x",
        "https://",
    ],
)
def test_a_redirect_to_an_address_that_is_not_allowed_is_refused_by_its_text(bench: Bench, target: str) -> None:
    bench.origin.scripts["/file"] = redirect(target)
    outcome = bench.run()
    assert isinstance(outcome, SourceFailed)
    assert bench.attempts("permanent") == 1


def test_a_name_that_leads_to_a_private_address_is_refused_without_a_connection(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name looks public and the DNS answer is loopback, where somebody listens and counts."""
    with ScriptedOrigin() as victim:
        victim.scripts["/x"] = ranged(DATA)
        _resolve(monkeypatch, "cdn.example.com", "127.0.0.1")
        bench.origin.scripts["/file"] = redirect(f"https://cdn.example.com:{victim.port}/x", linked(DATA))
        outcome = bench.run()
        assert isinstance(outcome, SourceFailed)
        assert "127.0.0.1" in outcome.message
        assert victim.connections == 0


def test_one_bad_address_among_good_ones_is_enough_to_refuse(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    _resolve(monkeypatch, "cdn.example.com", "127.0.0.1", "93.184.216.34")
    bench.origin.scripts["/file"] = redirect("https://cdn.example.com/x")
    outcome = bench.run()
    assert isinstance(outcome, SourceFailed)
    assert "not a public address" in outcome.message


def _resolve(monkeypatch: pytest.MonkeyPatch, name: str, *addresses: str) -> None:
    """Let a name resolve to `addresses`: a resolver is the one thing that a test cannot have for itself."""
    real = socket.getaddrinfo

    def resolve(host: str, port: int, **kwargs: object) -> list[object]:
        if host != name:
            return list(real(host, port, **kwargs))  # type: ignore[arg-type]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr("services.downloader.sources.connection.socket.getaddrinfo", resolve)


def test_a_loop_of_redirects_ends(bench: Bench) -> None:
    bench.origin.scripts["/file"] = in_turn(status(200, linked(DATA)), redirect("/file"))
    outcome = bench.run()
    assert isinstance(outcome, SourceFailed)
    assert "redirects" in outcome.message
    assert len(bench.origin.asked("/file")) <= FAST.redirects + 1


def test_the_body_of_a_redirect_is_not_read(bench: Bench) -> None:
    """An endless one would otherwise fill the memory."""

    def script(answer: Answer) -> None:
        answer.head(302, {"Location": "/cdn", **linked(DATA)})
        for _ in range(100):
            answer.body(bytes(1024 * 1024))

    bench.origin.scripts["/file"] = script
    bench.origin.scripts["/cdn"] = ranged(DATA)
    assert bench.run() == Completed(len(DATA))
    assert bench.origin.sent("/file") < 32 * 1024 * 1024


def test_the_token_goes_to_the_endpoint_alone(bench: Bench) -> None:
    with ScriptedOrigin() as cdn:
        cdn.scripts["/x"] = ranged(DATA)
        bench.origin.scripts["/file"] = redirect(f"{cdn.url}/x", linked(DATA))
        environ = {
            "HF_ENDPOINT": bench.origin.url,
            "R3MES_ALLOW_HTTP_SOURCES": f"{bench.origin.host},{cdn.host}",
        }
        assert bench.run(environ=environ, token="hf_secret") == Completed(len(DATA))
        assert {seen.headers.get("authorization") for seen in bench.origin.requests} == {"Bearer hf_secret"}
        assert {seen.headers.get("authorization") for seen in cdn.requests} == {None}


def test_a_proxy_of_the_environment_is_used(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain proxy is asked for the whole URL; here it answers by itself."""
    with ScriptedOrigin() as proxy:
        proxy.scripts["/file"] = ranged(DATA)
        monkeypatch.setenv("http_proxy", proxy.url)
        environ = {"HTTP_PROXY": proxy.url}
        assert bench.run(environ=environ) == Completed(len(DATA))
        assert bench.origin.requests == []
        assert proxy.connections > 0
