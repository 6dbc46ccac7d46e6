"""Trials of one turn of the verifier, in each of which one system call on the store fails or is the process's last.

`record` lists the calls of a turn to which nothing happens; `Trial.run` makes one of them go wrong and returns what was
wrong then: with I1 and I2, with how the turn ended, with what a second turn makes of it, with what is left over. After
an error the same process takes the second turn; after a kill, another one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.verifier.housekeeping import sweep_orphans
from services.verifier.rejected import read_rejected
from services.verifier.run_once import Outcome, verify_once
from shared.store.verified import has_right_receipt
from tests.support.low_space import assert_no_byte_is_lost
from tests.support.promotion_modes import FILE_NAME, Mode, Prepared
from tests.support.system_calls import SYNCS, Call, Fault, injection, read_trace, retried_sync
from tests.support.traced_child import KILLED, TracedChild, follow
from tests.support.verifier_stand import make_verifier

_ENDS = {True: {Outcome.PROMOTED, Outcome.ALREADY_VERIFIED}, False: {Outcome.REJECTED, Outcome.NOTHING}}


def record(mode: Mode, directory: Path) -> list[Call]:
    """Return the calls on the store of a turn to which nothing happens, each name and ordinal once."""
    directory.mkdir(parents=True)
    prepared = mode.prepare(directory / "models")
    with _child(mode, prepared, directory) as child:
        child.turn(directory / "trace")
    calls = [call for call in read_trace(directory / "trace") if call.leads_to(prepared.store.layout.root)]
    return list({(call.name, call.ordinal): call for call in reversed(calls)}.values())[::-1]


@dataclass(frozen=True)
class Trial:
    """One call of a recording and what happens to it; `directory` is to be made."""

    mode: Mode
    call: Call
    fault: Fault
    directory: Path

    def run(self) -> list[str]:
        """Return what was wrong, each with the call and the fault."""
        self.directory.mkdir(parents=True)
        prepared = self.mode.prepare(self.directory / "models")
        with _child(self.mode, prepared, self.directory) as child:
            wrong = [f"{self}: {found}" for found in self._run(prepared, child)]
        if not wrong:
            shutil.rmtree(self.directory)  # there are thousands
        return wrong

    def __str__(self) -> str:
        return f"{self.fault.name} at {self.call.name} number {self.call.ordinal}, {self.call.shape}"

    def _run(self, prepared: Prepared, child: TracedChild) -> Iterator[str]:
        trace = self.directory / "trace"
        ended = child.turn(trace, injection(self.call.name, self.call.ordinal, self.fault))
        calls = read_trace(trace)
        if not any(self._is_it(call) for call in calls):
            yield "the call was not reached"
        yield from self._after_one_turn(prepared)
        if self.fault is Fault.KILL:
            if ended is not None or child.exitcode() != KILLED:
                yield f"it was not killed, and ended {ended}"
            prepared.complete()
            if self.call.ordinal % 2:  # a service sweeps first; `r3mes import` does not
                sweep_orphans(make_verifier(prepared.store))
            second = verify_once(prepared.store.layout, prepared.digest).value
        elif ended is None:
            what = "a traceback" if "Traceback" in child.log() else f"it died with {child.exitcode()}"
            yield f"{what}: {child.log()[-2000:]}"
            return
        else:
            yield from self._after_an_error(prepared, ended)
            prepared.complete()
            second = child.turn(self.directory / "second") or "died"
            calls += read_trace(self.directory / "second")
            if (again := retried_sync(calls)) is not None:
                yield f"a failed fsync was tried again: {again.text}"
            # A close that is not made leaves its descriptor open, which a real one does not, whatever it returns.
            if self.call.name != "close" and (left := child.open_in_store()):
                yield f"these were left open: {left}"
        yield from self._after_two_turns(prepared, second)

    def _is_it(self, call: Call) -> bool:
        is_hit = call.text.rstrip().endswith("= ?") if self.fault is Fault.KILL else call.is_injected
        return is_hit and (call.name, call.ordinal, call.shape) == (self.call.name, self.call.ordinal, self.call.shape)

    def _after_one_turn(self, prepared: Prepared) -> Iterator[str]:
        store, digest = prepared.store, prepared.digest
        records = read_rejected(store.layout, digest)
        if wrong := store.wrong_verified_files():
            yield f"I1: {wrong}"
        if self.mode.is_right:
            try:
                assert_no_byte_is_lost(store, prepared.content, prepared.received, FILE_NAME)
            except (AssertionError, ValueError, OSError) as error:
                yield f"I2: {type(error).__name__} {str(error)[:200]}"
            if records:
                yield f"right bytes were rejected: {records}"
        elif not _data_is_there(prepared) and len(records) != 1:
            yield f"wrong bytes were removed with {len(records)} records"

    def _after_an_error(self, prepared: Prepared, ended: str) -> Iterator[str]:
        if self.mode.is_right and ended == Outcome.REJECTED:
            yield "right bytes were called wrong"
        if self.call.name not in SYNCS:
            return
        # What was to be made durable perhaps is not: nothing may be built upon it.
        if ended != Outcome.ERROR and self.mode.first is not follow:
            yield f"a failed fsync was passed over: {ended}"
        if not _data_is_there(prepared):
            yield "incoming was removed after a failed fsync"
        if "(deleted)" in self.call.text and prepared.store.verified_names(prepared.digest):
            yield "a copy was named after its fsync had failed"

    def _after_two_turns(self, prepared: Prepared, ended: str) -> Iterator[str]:
        store, layout, digest = prepared.store, prepared.store.layout, prepared.digest
        sweep_orphans(make_verifier(store))
        records = [found.reason for found in read_rejected(layout, digest).values()]
        if ended not in _ENDS[self.mode.is_right]:
            yield f"the next turn ended {ended}"
        if records != ([] if self.mode.is_right else ["mismatch"]):
            yield f"the records are {records}"
        if store.wrong_verified_files():
            yield "I1 after the next turn"
        names = [FILE_NAME, "receipt.json"] if self.mode.is_right else []
        if store.verified_names(digest) != sorted(names):
            yield f"verified has {store.verified_names(digest)}"
        if self.mode.is_right and has_right_receipt(layout, digest, FILE_NAME) is None:
            yield "the receipt is not right"
        if left := {path.name for path in layout.incoming_dir(digest).iterdir()} - self._may_stay():
            yield f"incoming still has {left}"
        if orphans := [*layout.partial.iterdir(), *(path for path in layout.rejected.iterdir() if path.name[0] == ".")]:
            yield f"orphans: {orphans}"

    def _may_stay(self) -> set[str]:
        """The downloader's own; and wrong bytes without their journal are void, and the downloader's to begin anew."""
        return {"lease.json"} if self.mode.is_right else {"lease.json", "data"}


def _child(mode: Mode, prepared: Prepared, directory: Path) -> TracedChild:
    without_tmpfile = mode.without_tmpfile
    return TracedChild(
        prepared.store, prepared.digest, mode.first, directory / "child.log", without_tmpfile=without_tmpfile
    )


def _data_is_there(prepared: Prepared) -> bool:
    directory = prepared.store.layout.incoming_dir(prepared.digest)
    return any(path.name == "data" or path.name.startswith(".claimed-") for path in directory.iterdir())
