"""The store's side of a turn: room, a store that cannot be written, and the lease of the one writer."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from services.downloader.interrupt import Interrupt, Reason
from services.downloader.transfer.incoming import IncomingFile, Origin, read_journal
from services.downloader.transfer.lease import Identity, LeaseKeeper
from services.downloader.transfer.outcomes import Completed, Interrupted, LeaseTaken, LocalTrouble, NoRoom, Outcome
from services.downloader.transfer.space import MIN_MARGIN, Mode, Room
from shared.states import Source
from shared.store.records import PartialNote
from tests.support.downloader_process import sha256
from tests.support.origin_server import Hold, ScriptedOrigin, linked, ranged
from tests.support.transfer_bench import DATA, FAST, RANGE, Bench
from tests.support.waiting import wait_until


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


def test_whole_bytes_of_a_size_that_the_pin_does_not_allow_are_fetched_anew(bench: Bench) -> None:
    pin, longer = bench.pin(), DATA + b"more"
    origin = Origin(Source.HUGGINGFACE, f"{bench.origin.url}/file", "")
    file = IncomingFile.start(bench.layout, pin.sha256, len(longer), origin, "1" * 32, Mode.NORMAL)
    file.write_at(0, longer)
    file.sync()
    file.close()
    journal = read_journal(bench.layout, pin.sha256)
    assert journal is not None
    assert journal.ranges == ((0, len(longer)),)
    bench.origin.scripts["/file"] = ranged(DATA, headers=linked(DATA))
    assert bench.run(pin) == Completed(len(DATA))
    assert bench.is_complete()


def test_a_second_writer_stays_out(bench: Bench) -> None:
    bench.origin.scripts["/file"] = ranged(DATA)
    directory = bench.layout.incoming_dir(sha256(DATA))
    directory.mkdir()
    other = LeaseKeeper(Identity("another-host", "b", "p", 1, "2" * 32))
    other.acquire(bench.layout.lease(sha256(DATA)))
    assert bench.run() == LeaseTaken()
    assert bench.origin.requests == []


def test_a_writer_that_lost_its_lease_stops_writing(bench: Bench) -> None:
    hold = Hold(after=2 * RANGE, for_all=True)
    bench.origin.scripts["/file"] = ranged(DATA, hold=hold)
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(bench.run()))
    thread.start()
    wait_until(lambda: bench.durable() == 2 * RANGE, what="all that came to be announced")
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


def test_a_generation_that_the_verifier_voids_is_not_written_any_further(bench: Bench) -> None:
    """Low-space mode: bytes that a crash lost make the verifier remove journal and data, also while more is coming."""
    hold = Hold(after=2 * RANGE, for_all=True)
    bench.origin.scripts["/file"] = ranged(DATA, hold=hold)
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(bench.run()))
    thread.start()
    wait_until(lambda: bench.durable() == 2 * RANGE, what="all that came to be announced")
    bench.layout.data(sha256(DATA)).unlink()
    bench.layout.journal(sha256(DATA)).unlink()
    hold.release()
    thread.join(20)
    assert outcomes == [Interrupted(Reason.VOID)]
    assert not bench.layout.journal(sha256(DATA)).exists()
    bench.interrupt = Interrupt()
    assert bench.run() == Completed(len(DATA))
    assert bench.is_complete()


def test_what_is_durable_is_announced_also_where_there_is_no_room(bench: Bench) -> None:
    """A process died between the last sync and the announcement, and the disk is full: nothing is left to write."""
    bench.origin.scripts["/file"] = ranged(DATA)
    bench.run()
    digest = sha256(DATA)
    journal = read_journal(bench.layout, digest)
    assert journal is not None
    journal.model_copy(update={"complete": False}).write(bench.layout.journal(digest))
    bench.room = Room(free=0)
    assert bench.run() == Completed(len(DATA))
    assert bench.is_complete()


def test_what_a_kill_left_of_a_journal_is_swept_by_the_next_turn(bench: Bench) -> None:
    bench.origin.scripts["/file"] = ranged(DATA)
    directory = bench.layout.incoming_dir(sha256(DATA))
    directory.mkdir()
    (directory / ".journal.json.0123456789abcdef").write_bytes(b"half of one")
    assert bench.run() == Completed(len(DATA))
    assert sorted(path.name for path in directory.iterdir()) == ["data", "journal.json"]


def test_low_space_mode_never_goes_further_ahead_than_it_may(tmp_path: Path, origin: ScriptedOrigin) -> None:
    """No verifier follows: the turn waits, with no more than the bound on the disk, and blames no source."""
    limits = replace(FAST, ahead_bytes=2 * RANGE, quiet_seconds=0.5)
    bench = Bench(tmp_path, origin, limits=limits, room=Room(free=len(DATA) + MIN_MARGIN), connections=4)
    origin.scripts["/file"] = ranged(DATA, headers=linked(DATA))
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(bench.run()))
    thread.start()
    wait_until(lambda: bench.durable() == 2 * RANGE, what="as much as may be ahead")
    journal = read_journal(bench.layout, sha256(DATA))
    assert journal is not None
    bench.layout.partial.mkdir(parents=True)
    PartialNote(generation=journal.generation, durable=RANGE).write(bench.layout.partial_note(sha256(DATA)))
    wait_until(lambda: bench.durable() == 3 * RANGE, what="as much as may be ahead now")
    assert thread.is_alive()  # longer than any source may be silent
    PartialNote(generation=journal.generation, durable=4 * RANGE).write(bench.layout.partial_note(sha256(DATA)))
    thread.join(20)
    assert outcomes == [Completed(len(DATA))]
    assert bench.failures == []
