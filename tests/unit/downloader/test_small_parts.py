from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.downloader.api import events
from services.downloader.api.auth import is_same_origin
from services.downloader.board import Board
from services.downloader.bulletin import Bulletin, keep_fresh
from services.downloader.controls import Controls
from services.downloader.desired import desired_pins
from services.downloader.interrupt import Interrupt, InterruptedTransferError, Reason
from services.downloader.limits import Limits, limits_for
from services.downloader.observe import counting_mismatches
from services.downloader.runner import may_begin
from services.downloader.settings import load_downloader_settings
from services.downloader.sources.base import TransientSourceError, exactly
from services.downloader.sources.pacing import Pace
from services.downloader.transfer.progress import Progress, Snapshot
from shared.errors import ConfigurationError
from shared.genesis import parse_genesis
from shared.states import ModelState, ModelStatus, Source
from shared.store.layout import StoreLayout
from shared.store.records import Control, RejectedRecord
from shared.store.trust import Trust
from tests.support.geneses import DIGEST, OTHER_DIGEST, entry, list_form, other_entry, plain_form
from tests.support.waiting import wait_until

STATUS = ModelStatus(DIGEST, "Tiny", "tiny.gguf", ModelState.ABSENT, updated_at=1.0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("chunks", "kept", "error"),
    [
        ([b"abc", b"def"], b"abcdef", None),
        ([b"abc"], b"abc", "3 bytes early"),
        ([], b"", "6 bytes early"),
        ([b"abc", b"defg"], b"abcdef", "goes on"),
        ([b"abcdef", b"g"], b"abcdef", "goes on"),
    ],
)
def test_a_body_yields_exactly_what_it_announced(chunks: list[bytes], kept: bytes, error: str | None) -> None:
    got: list[bytes] = []

    def drain(source: Iterator[bytes]) -> None:
        got.extend(exactly(source, 6))

    if error is None:
        drain(iter(chunks))
    else:
        with pytest.raises(TransientSourceError, match=error):
            drain(iter(chunks))
    assert b"".join(got) == kept


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        (None, "h:8081", True),
        ("http://h:8081", "h:8081", True),
        ("https://gateway.example", "gateway.example", True),
        ("http://H:8081", "h:8081", True),
        ("http://h:8082", "h:8081", False),
        ("http://evil.example", "h:8081", False),
        ("null", "h:8081", False),
        ("", "h:8081", False),
        ("http://h:8081.evil.example", "h:8081", False),
        ("file://h:8081", "h:8081", False),
        ("http://[", "h:8081", False),
    ],
)
def test_same_origin(origin: str | None, host: str, same: bool) -> None:
    assert is_same_origin(origin, host) is same


def test_the_pace_spreads_bytes_over_time() -> None:
    clock = Clock()
    pace = Pace(100, clock)
    assert pace.book(50) == 0.0
    assert pace.book(50) == 0.5, "what another connection has booked is waited for before anything is taken"
    pace.give_back(30)
    assert pace.book(25) == 0.7
    clock.now = 10.0
    assert pace.book(100) == 0.0
    assert pace.book(1) == 1.0, "silence saves nothing up"
    assert pace.chunk_bytes(10**6) == 25
    assert Pace(None).book(10**9) == 0.0


def test_the_rate_is_that_of_the_last_seconds_and_gives_the_time_left() -> None:
    clock = Clock()
    progress = Progress(Source.HUGGINGFACE, clock)
    progress.set(1000, 2000)
    assert progress.snapshot().bytes_per_second is None
    for second in range(1, 6):
        clock.now = float(second)
        progress.add(100, 1000 + 100 * second)
    snapshot = progress.snapshot()
    assert snapshot.received == 1500
    assert snapshot.bytes_per_second == pytest.approx(125)
    assert snapshot.eta_seconds == pytest.approx(4)
    clock.now = 1000.0
    assert (progress.snapshot().bytes_per_second or 0) < 1


def test_an_interrupt_wakes_who_waits_and_who_reads() -> None:
    interrupt = Interrupt()
    ours, theirs = socket.socketpair()
    interrupt.watch(ours)
    got: list[object] = []

    def read() -> None:
        got.append(ours.recv(1))
        try:
            interrupt.wait(60)
        except InterruptedTransferError as error:
            got.append(error.reason)

    reader = threading.Thread(target=read)
    reader.start()
    interrupt.tell(Reason.OPERATOR)
    interrupt.tell(Reason.SHUTDOWN)
    reader.join(10)
    assert got == [b"", Reason.OPERATOR]
    ours.close()
    theirs.close()


def test_the_board_rings_for_changes_and_not_for_time_alone() -> None:
    board, rings = Board(), []
    board.add_bell(lambda: rings.append(1))
    board.show([STATUS])
    board.show([ModelStatus(**{**STATUS.to_json(), "updated_at": 2.0})])
    assert len(rings) == 1
    board.show([ModelStatus(**{**STATUS.to_json(), "received_bytes": 5})])
    assert len(rings) == 2
    board.show([])
    assert (len(rings), board.status(DIGEST)) == (3, None)


def test_an_event_carries_the_status_document() -> None:
    board = Board()
    board.show([STATUS])
    lines = events.format_event(board.entries()[0]).splitlines()
    assert lines[1] == "event: status"
    assert json.loads(lines[2].removeprefix("data: ")) == STATUS.to_json()


def test_a_silent_stream_is_kept_alive_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE_SECONDS", 0.01)
    monkeypatch.setattr(events, "_STOP_CHECK_SECONDS", 0.02)
    board = Board()
    board.show([STATUS])

    async def first_three() -> list[str]:
        stream = events.status_events(board, None, threading.Event())
        return [await anext(stream) for _ in range(3)]

    first, *comments = asyncio.run(first_three())
    assert first.startswith("id: 1\nevent: status\n")
    assert comments == [": nothing new\n\n"] * 2


def test_a_bulletin_rings_for_what_differs_and_is_told_to_those_who_want_it() -> None:
    board, bulletin, rings = Board(), Bulletin("miners"), []
    bulletin.add_bell(lambda: rings.append(1))
    bulletin.show([])
    bulletin.show([])
    bulletin.show([{"ready": True}])
    assert (len(rings), bulletin.latest()) == (2, (2, [{"ready": True}]))
    board.show([STATUS])

    async def first(*bulletins: Bulletin) -> list[str]:
        stream = events.status_events(board, None, threading.Event(), bulletins)
        return [await anext(stream) for _ in range(1 + len(bulletins))]

    assert asyncio.run(first()) == [events.format_event(board.entries()[0])]
    assert asyncio.run(first(bulletin))[1] == 'event: miners\ndata: [{"ready": true}]\n\n'


def test_what_fails_in_keeping_a_bulletin_fresh_is_no_secret() -> None:
    crashes: list[BaseException] = []
    keep_fresh(Bulletin("x"), lambda: 1 // 0, 0.01, threading.Event(), crashes.append)
    wait_until(lambda: [type(crash) for crash in crashes] == [ZeroDivisionError], what="the crash to be told")


def test_models_of_the_staged_genesis_come_after_the_accepted_ones_and_each_once() -> None:
    accepted = parse_genesis(plain_form(), file="a")
    staged = parse_genesis(list_form(other_entry(), entry(model_name="Renamed")), file="b")
    pins = desired_pins(Trust(accepted, staged))
    assert [(pin.sha256, pin.model_name) for pin in pins] == [(DIGEST, "Tiny"), (OTHER_DIGEST, "Other")]


def test_only_mismatches_of_a_present_genesis_that_are_not_forgiven_count() -> None:
    def record(**changes: object) -> RejectedRecord:
        fields = {
            "sha256": DIGEST,
            "found": OTHER_DIGEST,
            "size": 1,
            "reason": "mismatch",
            "generation": "g",
            "source": Source.HUGGINGFACE,
            "revision": "",
            "genesis_sha256": DIGEST,
            "rejected_at": 100.0,
        }
        return RejectedRecord.model_validate({**fields, **changes})

    records = (
        record(),
        record(genesis_sha256=OTHER_DIGEST),
        record(rejected_at=49.0),
        record(reason="tampered"),
        record(reason="bytes_lost"),
    )
    assert len(counting_mismatches(records, frozenset({DIGEST}), forgiven_before=50.0)) == 1


def test_an_operators_word_counts_though_it_cannot_be_written_and_is_written_later(tmp_path: Path) -> None:
    layout = StoreLayout(tmp_path)
    controls = Controls(layout)  # there is no incoming directory yet
    controls.update(DIGEST, lambda control: control.model_copy(update={"wish": "paused"}))
    assert controls.read(DIGEST).wish == "paused"
    layout.incoming.mkdir()
    controls.flush()
    assert Control.read(layout.control(DIGEST)) == Control(wish="paused")
    assert Controls(layout).read(DIGEST).wish == "paused"


def test_a_document_that_does_not_change_is_not_written(tmp_path: Path) -> None:
    layout = StoreLayout(tmp_path)
    layout.incoming.mkdir()
    Controls(layout).update(DIGEST, lambda control: control)
    assert list(layout.incoming.iterdir()) == []


def test_the_chain_check_is_refused_rather_than_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R3MES_CHAIN_RPC", "https://rpc.example")
    with pytest.raises(ConfigurationError, match="R3MES_CHAIN_RPC"):
        load_downloader_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("R3MES_DOWNLOAD_CONNECTIONS", "0"),
        ("R3MES_DOWNLOAD_MAX_BYTES_PER_SECOND", "-1"),
        ("R3MES_RECONCILE_SECONDS", "0"),
        ("R3MES_RECONCILE_SECONDS", "nan"),
        ("R3MES_LISTEN", "8081"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name):
        load_downloader_settings()


def test_what_a_disk_sync_costs_is_bounded_by_the_contract() -> None:
    assert Limits().journal_bytes <= 64 * 1024 * 1024


def _piece(seconds: float, rate: float | None) -> Snapshot:
    return Snapshot(Source.HUGGINGFACE, 0, None, rate, seconds)


TRICKLE, FAST, YOUNG = _piece(60.0, 5_000.0), _piece(60.0, 10.0**7), _piece(3.0, None)


@pytest.mark.parametrize(
    ("running", "may"),
    [
        pytest.param([], True, id="nothing runs"),
        pytest.param([FAST], False, id="the first model comes first"),
        pytest.param([YOUNG], False, id="it has just begun"),
        pytest.param([TRICKLE], True, id="a trickle holds up nobody"),
        pytest.param([_piece(60.0, None)], True, id="nor does silence"),
        pytest.param([TRICKLE, FAST], False, id="one of them is fast"),
        pytest.param([TRICKLE] * 4, False, id="enough is enough"),
        pytest.param([None], False, id="a file is being hashed"),
    ],
)
def test_another_transfer_begins_only_beside_slow_ones(running: list[Snapshot | None], may: bool) -> None:
    assert may_begin(running) is may


@pytest.mark.parametrize(
    ("bytes_per_second", "connections", "least"),
    [(None, 8, 4096), (10**9, 8, 4096), (10**6, 3, 4096), (100_000, 1, 4096), (1000, 1, 250)],
)
def test_a_bandwidth_limit_means_fewer_connections_and_no_source_too_slow(
    bytes_per_second: int | None, connections: int, least: int
) -> None:
    limits = limits_for(Limits(), 8, bytes_per_second)
    assert (limits.connections, limits.least_bytes_per_second) == (connections, least)
