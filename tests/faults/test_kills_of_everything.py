"""SIGKILL at random of downloader, verifier and Redis while models are pulled: nothing wrong, lost, or at a standstill.

Several stands run side by side, each with a Redis, a store, an origin and services of its own; one has a disk with room
for one copy only. A watch looks at each store without end. The seed is printed; `KILL_SEED` sets it.
"""

from __future__ import annotations

import os
import secrets
import statistics
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.kill_moments import Moment
from tests.support.kill_stand import NAMES, Budget, Kill, Plan, Stand
from tests.support.loop_disk import loop_disk
from tests.support.model_supply import MIB, MOSTLY_LARGE
from tests.support.service_nursery import Nursery

DISK_BYTES = 356 * MIB
# What stays free beside a model (services.downloader.transfer.space), and a little for the documents.
KEPT_FREE = 256 * MIB + 4 * MIB


@dataclass
class Runs:
    """What several stands did; `failures` is empty when all is well."""

    stands: list[Stand] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def kills(self) -> list[Kill]:
        return [kill for stand in self.stands for kill in stand.kills]


def run_stands(home: Path, kills: int, *plans: Callable[[int], Plan]) -> Runs:
    """Let the stands share the kills, each in a thread; return when all have settled or failed."""
    seed = int(os.environ.get("KILL_SEED") or secrets.randbits(32))
    say(f"KILL_SEED={seed}")
    runs, budget = Runs(), Budget(kills)

    def run(stand: Stand) -> None:
        try:
            with stand.open():
                stand.kill_at_random(budget)
                stand.settle()
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits
            budget.cancel()
            runs.failures.append(f"{stand.plan.name}: {type(error).__name__}: {error}")

    with Nursery(home) as nursery:
        for number, plan in enumerate(plans):
            place = home / str(number)
            place.mkdir()
            runs.stands.append(Stand(plan(seed + number), place, nursery))
        threads = [threading.Thread(target=run, args=(stand,), name=stand.plan.name) for stand in runs.stands]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    report(runs)
    return runs


def report(runs: Runs) -> None:
    """Say what was hit, and how long it took until the killed were at work again."""
    for name in NAMES:
        mine = [kill for kill in runs.kills if kill.service == name]
        moments = Counter(str(moment) for kill in mine for moment in kill.moments)
        seconds = sorted(kill.seconds for kill in mine if kill.seconds is not None) or [0.0]
        back = f"back to work after {statistics.median(seconds):.1f} s (median), {seconds[-1]:.1f} s (most)"
        early = sum(kill.is_early for kill in mine)
        say(f"{name}: {len(mine)} kills, {back}; while {dict(moments)}; {early} before it was at work again")
    for stand in runs.stands:
        watch, models = stand.watch, stand.models
        verdicts = sorted(watch.verdict_seconds) or [0.0]
        say(
            f"{stand.plan.name}: {len(stand.kills)} kills, {watch.looks} looks, {watch.hashed} verified files hashed, "
            f"verdicts after {statistics.median(verdicts):.1f} s (median), {verdicts[-1]:.1f} s (most), "
            f"{watch.split} times bytes in two places, {models.geneses} geneses, {models.removed_by_hand} removed by "
            f"hand, {models.unwanted} unwanted on their way, {len(list(stand.layout.rejected.iterdir()))} lies found, "
            f"at most {stand.peak_bytes // MIB} MiB"
        )


def say(line: str) -> None:
    """Tell pytest's captured output, which a failure shows."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def assert_all_went_well(runs: Runs, kills: int) -> None:
    assert not runs.failures, "\n\n".join(runs.failures)
    assert len(runs.kills) == kills
    assert all(kill.seconds is not None and kill.seconds <= 60 for kill in runs.kills)
    for stand in runs.stands:
        assert stand.peak_bytes <= 3 * stand.plan.cap_bytes, "more than two copies and what is on its way out"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_after_twenty_kills_everything_ends_verified(tmp_path: Path) -> None:
    runs = run_stands(
        tmp_path, 20, lambda seed: Plan("a host", tmp_path / "models", seed, slots=6, reconcile_seconds=1.0)
    )
    assert_all_went_well(runs, 20)


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_after_a_thousand_kills_everything_ends_verified(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", DISK_BYTES) as disk:
        assert disk is not None or os.environ.get("CI") != "true", "a small ext4 cannot be mounted here"
        if disk is None:
            say("a small ext4 cannot be mounted here: all stands have room for two copies")
        runs = run_stands(
            tmp_path,
            1000,
            lambda seed: Plan("turns as in production", tmp_path / "one", seed, reconcile_seconds=15.0),
            lambda seed: Plan("quick turns", tmp_path / "two", seed),
            lambda seed: room_for_one_copy(seed, disk) if disk else Plan("a third host", tmp_path / "three", seed),
        )
        assert_all_went_well(runs, 1000)
        assert_it_was_a_proof(runs, disk is not None)


def room_for_one_copy(seed: int, disk: Path) -> Plan:
    """Plan a stand whose models just fit on the disk, once each."""
    usage = os.statvfs(disk)
    room = usage.f_bavail * usage.f_frsize - KEPT_FREE
    return Plan("room for one copy", disk / "three", seed, 6, room, MOSTLY_LARGE)


def assert_it_was_a_proof(runs: Runs, has_small_disk: bool) -> None:
    """Kills that always hit the same would prove little."""
    hit = Counter((kill.service, moment) for kill in runs.kills for moment in kill.moments)
    for name in NAMES:
        assert sum(kill.service == name for kill in runs.kills) >= 200
        assert hit[name, Moment.DOWNLOADING] >= 50
        assert hit[name, Moment.VERIFYING] >= 50
        assert hit[name, Moment.PROMOTING] >= 20
    assert sum(kill.is_early for kill in runs.kills) >= 20
    assert sum(kill.together > 1 for kill in runs.kills) >= 50
    assert all(len(stand.kills) >= 100 for stand in runs.stands)
    assert sum(stand.watch.completions for stand in runs.stands) >= 300
    assert sum(len(list(stand.layout.rejected.iterdir())) for stand in runs.stands) >= 10
    assert all(stand.watch.looks >= 5000 for stand in runs.stands)
    if has_small_disk:
        assert runs.stands[-1].watch.split >= 10, "bytes were never in partial and incoming together"
