"""Every system call on the store of every kind of turn: killed at it, ENOSPC from it, EIO from it.

After each, I1 and I2 hold, no right byte was called wrong, no failed fsync was tried again, and the next turn ends it.
"""

import itertools
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import careless_turns
from tests.support.programs import need
from tests.support.promotion_modes import MODES, UNNAMED, Mode
from tests.support.system_call_trials import Trial, record
from tests.support.system_calls import Call, Fault
from tests.support.traced_child import Turn

AT_ONCE = 2  # most of a trial is waiting for fork, strace and disk
MEMORY = Path("/dev/shm")  # noqa: S108 - a tmpfs on every Linux

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def strace() -> None:
    need("strace")


@pytest.fixture
def in_memory() -> Iterator[Path]:
    if not MEMORY.is_mount():
        pytest.skip(f"needs a tmpfs at {MEMORY}")
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        yield Path(directory)


def record_all(mode: Mode, directory: Path) -> list[Call]:
    calls = record(mode, directory / "recording")
    unseen = [part for part in mode.sees if not any(part in call.text for call in calls)]
    assert not unseen, f"{mode}: no call has {unseen}"
    assert len(calls) >= mode.least_calls, f"{mode}: the calls on the store were not seen"
    return calls


def try_all(mode: Mode, calls: Iterable[Call], faults: Iterable[Fault], directory: Path) -> list[str]:
    """Return what was wrong in any trial."""
    trials = [
        Trial(mode, call, fault, directory / str(number))
        for number, (call, fault) in enumerate(itertools.product(calls, faults))
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        wrong = list(itertools.chain.from_iterable(pool.map(Trial.run, trials)))
    print(f"{mode}: {len(trials)} trials, {len(wrong)} findings")  # noqa: T201
    return wrong


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_fault_at_any_system_call_breaks_nothing(mode: Mode, tmp_path: Path) -> None:
    wrong = try_all(mode, record_all(mode, tmp_path), Fault, tmp_path)
    assert not wrong, "\n".join(wrong)


def test_a_fault_at_any_system_call_breaks_nothing_on_tmpfs(in_memory: Path) -> None:
    mode = replace(UNNAMED, name="unnamed copy on tmpfs")
    wrong = try_all(mode, record_all(mode, in_memory), Fault, in_memory)
    assert not wrong, "\n".join(wrong)


def test_calls_of_a_thread_are_seen_and_made_to_fail_as_well(tmp_path: Path) -> None:
    mode = replace(UNNAMED, name="unnamed copy in a thread", first=careless_turns.verify_in_a_thread)
    calls = [call for call in record_all(mode, tmp_path) if call.name in {"fsync", "linkat", "pwrite64"}]
    wrong = try_all(mode, calls, Fault, tmp_path)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("turn", "name", "fault", "finding"),
    [
        (careless_turns.name_before_copying, "write", Fault.KILL, "I1: "),
        (careless_turns.name_before_copying, "write", Fault.ENOSPC, "I1: "),
        (careless_turns.remove_before_naming, "linkat", Fault.KILL, "I2: "),
        (careless_turns.remove_before_naming, "linkat", Fault.EIO, "I2: "),
        (careless_turns.sync_again, "fsync", Fault.EIO, "a failed fsync was tried again"),
        (careless_turns.sync_again, "fsync", Fault.EIO, "a failed fsync was passed over"),
        (careless_turns.end_at_errors, "preadv2", Fault.EIO, "right bytes were called wrong"),
        (careless_turns.keep_open, "newfstatat", Fault.EIO, "these were left open"),
        (careless_turns.fail_openly, "getdents64", Fault.EIO, "a traceback"),
    ],
)
def test_a_careless_turn_is_found_out(turn: Turn, name: str, fault: Fault, finding: str, tmp_path: Path) -> None:
    mode = replace(UNNAMED, name=turn.__name__, first=turn)
    calls = [call for call in record(mode, tmp_path / "recording") if call.name == name]
    wrong = try_all(mode, calls[:10], [fault], tmp_path)
    assert any(finding in found for found in wrong), "\n".join(wrong)
