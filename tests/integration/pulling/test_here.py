"""`r3mes pull` where no stack runs: the services' own code in one process, against an origin of ours."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from services.downloader.transfer.incoming import read_journal
from shared.states import FailureReason, Source
from shared.store.records import Control, Lease
from shared.store.verified import has_right_receipt
from tests.support.downloader_process import MIB, model
from tests.support.downloader_stand import DATA, DIGEST, PATH
from tests.support.importing import incoming_names, is_verified, run_r3mes
from tests.support.origin_server import Hold, ScriptedOrigin, ranged, status
from tests.support.pulling import CID, WRONG, Pull, alone, asked_twice, durable
from tests.support.small_disk import small_disk
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


def test_a_model_is_fetched_verified_and_linked_and_a_second_pull_downloads_nothing(
    home: Path, origin: ScriptedOrigin
) -> None:
    on = alone(home, origin)

    done = run_r3mes(on, "pull")

    assert done.returncode == 0, done.stderr
    path = on.layout.verified_file(DIGEST, "tiny.gguf")
    assert done.stdout == f"Tiny: verified, 3.1 MB from huggingface, ~/{path.relative_to(on.home)}\n"
    assert is_verified(on)
    assert (on.layout.root / "tiny.gguf").readlink() == Path("verified") / DIGEST / "tiny.gguf"
    assert not {"data", "journal.json", "lease.json"} & set(incoming_names(on.layout, DIGEST))
    for said in ("genesis accepted", "Tiny: from Hugging Face", "download: 3.1 MB of 3.1 MB", "verify: 3.1 MB of 3.1"):
        assert said in done.stderr
    assert not {"\r", "\x1b"} & set(done.stdout + done.stderr)
    assert '"event"' not in done.stderr  # no log lines of the services
    assert origin.sent("/cdn") == len(DATA)

    asked = len(origin.requests)
    again = run_r3mes(on, "pull", "--json", "-q", DIGEST[:8])
    assert again.returncode == 0
    assert again.stderr == ""
    report = json.loads(again.stdout)
    assert report["origin"] == str(on.layout.root)
    (told,) = report["models"]
    assert (told["model"], told["sha256"], told["result"], told["exit_code"]) == ("Tiny", DIGEST, "already_verified", 0)
    assert told["path"] == str(path)
    assert len(origin.requests) == asked


@pytest.mark.parametrize("end", ["interrupt", "kill"])
def test_a_pull_that_was_ended_goes_on_from_what_is_durable(home: Path, origin: ScriptedOrigin, end: str) -> None:
    hold = Hold(after=2 * MIB, for_all=True)
    origin.scripts["/cdn"] = ranged(DATA, hold=hold)
    on = alone(home, origin, R3MES_DOWNLOAD_CONNECTIONS="2")
    with Pull(on) as first:
        assert wait_until(lambda: durable(on) > MIB, 60, "durable bytes")
        if end == "interrupt":
            assert first.interrupt() == 130
            assert "stopped: what came is kept, and the same command goes on from it" in first.stderr
            assert "Traceback" not in first.stderr
            assert not on.layout.lease(DIGEST).exists()
        else:
            first.kill()
        assert first.stdout == ""
    journal = read_journal(on.layout, DIGEST)
    assert journal is not None
    assert journal.ranges
    hold.release()
    origin.scripts["/cdn"] = ranged(DATA)
    asked_before = len(origin.asked("/cdn"))

    with Pull(on) as second:
        assert second.wait() == 0, second.stderr
        assert "are here already; going on from there" in second.stderr

    assert is_verified(on)
    asked = [seen.range for seen in origin.asked("/cdn")[asked_before:] if seen.range is not None]
    assert asked
    assert asked_twice(journal.ranges, asked) == []


def test_wrong_bytes_are_exit_code_3_and_after_a_retry_right_ones_are_taken(home: Path, origin: ScriptedOrigin) -> None:
    origin.scripts["/cdn"] = ranged(WRONG)
    on = alone(home, origin)

    done = run_r3mes(on, "pull", "Tiny")

    assert done.returncode == 3, done.stderr
    assert done.stdout == ""
    assert "deleted them; they are fetched once more" in done.stderr
    assert "error: Tiny: hash mismatch: " in done.stderr
    assert "`r3mes retry Tiny`" in done.stderr
    assert origin.sent("/cdn") == 2 * len(DATA)
    assert len(list(on.layout.rejected.iterdir())) == 2
    assert not on.layout.verified_dir(DIGEST).exists()

    origin.scripts["/cdn"] = ranged(DATA)
    asked = len(origin.requests)
    assert run_r3mes(on, "pull").returncode == 3  # what was tried counts, also for the next command
    assert len(origin.requests) == asked
    told = run_r3mes(on, "retry", "Tiny")
    assert told.returncode == 0, told.stderr
    done = run_r3mes(on, "pull", "Tiny")
    assert done.returncode == 0, done.stderr
    assert is_verified(on)


def test_an_origin_that_is_away_is_exit_code_4_after_ipfs_was_asked(home: Path, origin: ScriptedOrigin) -> None:
    origin.scripts[PATH] = status(404)
    on = alone(home, origin, model(DATA, ipfs_fallback_hash=CID), R3MES_IPFS_GATEWAYS=origin.url)

    done = run_r3mes(on, "pull", "--json")

    assert done.returncode == 4, done.stderr
    paths = [seen.path for seen in origin.requests]
    assert paths.index(PATH) < paths.index(f"/ipfs/{CID}")
    (told,) = json.loads(done.stdout)["models"]
    assert (told["result"], told["state"], told["reason"]) == ("failed", "failed", "source_unavailable")
    assert told["next_attempt_at"] is not None
    assert "huggingface: " in told["message"]
    assert "ipfs: " in told["message"]
    assert "r3mes import FILE" in told["next_step"]

    origin.scripts[f"/ipfs/{CID}"] = ranged(DATA)
    again = run_r3mes(on, "pull")  # it does not wait for the next round: a person asked
    assert again.returncode == 0, again.stderr
    assert "Tiny: from IPFS" in again.stderr
    receipt = has_right_receipt(on.layout, DIGEST, "tiny.gguf")
    assert receipt is not None
    assert receipt.source is Source.IPFS


def test_too_small_a_disk_is_exit_code_5_and_nobody_is_asked(home: Path, origin: ScriptedOrigin) -> None:
    on = alone(home, origin, model(DATA, required_disk_space_gb=900_000.0))
    done = run_r3mes(on, "pull")
    assert done.returncode == 5, done.stderr
    assert "more must be free" in done.stderr
    assert "next: free some space" in done.stderr
    assert origin.requests == []


def test_a_failure_of_one_model_keeps_no_other_from_coming(home: Path, origin: ScriptedOrigin) -> None:
    missing = model(
        b"never there",
        model_name="Missing",
        file_name="missing.gguf",
        download_source="https://huggingface.co/org/missing/resolve/main/missing.gguf",
    )
    on = alone(home, origin, missing, model(DATA))
    done = run_r3mes(on, "pull")
    assert done.returncode == 4
    assert "error: Missing: source unavailable" in done.stderr
    assert done.stdout.startswith("Tiny: verified, ")
    assert is_verified(on)


def test_a_download_of_another_process_is_left_to_it(home: Path, origin: ScriptedOrigin) -> None:
    hold = Hold(after=MIB, for_all=True)
    origin.scripts["/cdn"] = ranged(DATA, hold=hold)
    on = alone(home, origin)
    with Pull(on) as first:
        wait_until(lambda: durable(on) > 0, 60, "durable bytes")
        for command in ("pull", "pause"):
            done = run_r3mes(on, command)
            assert done.returncode == 6, done.stderr
            assert f"process {first.process.pid} on " in done.stderr
            assert done.stdout == ""
        lease = Lease.read(on.layout.lease(DIGEST))
        assert lease is not None
        assert lease.pid == first.process.pid
        control = Control.read(on.layout.control(DIGEST))
        assert control is None or control.wish == "run"
        hold.release()
        assert first.wait() == 0, first.stderr
    assert is_verified(on)


def test_a_store_that_cannot_be_written_is_one_line_with_what_to_look_at(home: Path, origin: ScriptedOrigin) -> None:
    on = alone(home, origin)
    assert run_r3mes(on, "pause").returncode == 78  # nothing is accepted yet
    assert run_r3mes(on, "pull").returncode == 0
    shutil.rmtree(on.layout.verified_dir(DIGEST))
    shutil.rmtree(on.layout.incoming)
    on.layout.incoming.write_text("no folder")

    for command in ("pause", "retry"):
        done = run_r3mes(on, command)
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: cannot {command}: ")
        assert "check the disk and the owner of" in done.stderr


@pytest.mark.parametrize("at", ["1e300", "253402300800"])
def test_a_forged_moment_that_no_clock_shows_is_no_document(home: Path, origin: ScriptedOrigin, at: str) -> None:
    on = alone(home, origin)
    assert run_r3mes(on, "pull").returncode == 0
    shutil.rmtree(on.layout.verified_dir(DIGEST))
    control = Control(reason=FailureReason.SOURCE_UNAVAILABLE, next_attempt_at=1.0).model_dump_json().encode()
    on.layout.control(DIGEST).write_bytes(control.replace(b"1.0", at.encode()))

    done = run_r3mes(on, "status")

    assert done.returncode == 0, done.stderr
    assert "tried again" not in done.stdout


def test_a_file_that_lies_where_the_link_belongs_is_adopted_and_nothing_is_downloaded(
    home: Path, origin: ScriptedOrigin
) -> None:
    on = alone(home, origin)
    on.layout.root.mkdir()
    (on.layout.root / "tiny.gguf").write_bytes(DATA)
    done = run_r3mes(on, "pull")
    assert done.returncode == 0, done.stderr
    assert "Tiny: from a file on this machine" in done.stderr
    assert (on.layout.root / "tiny.gguf").is_symlink()
    assert origin.requests == []


def test_what_makes_no_sense_is_said_before_anything_is_fetched(home: Path, origin: ScriptedOrigin) -> None:
    on = alone(home, origin)
    unknown = run_r3mes(on, "pull", "Tina")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "did you mean Tiny?" in unknown.stderr
    container = run_r3mes(on, "pull", R3MES_STORE_KIND="container")
    assert container.returncode == 6
    assert "docker compose up --detach" in container.stderr
    nobody = run_r3mes(on, "pull", R3MES_URL="http://127.0.0.1:9")
    assert nobody.returncode == 6
    assert "no answer from http://127.0.0.1:9: nothing listens there" in nobody.stderr
    assert origin.requests == []


def test_room_for_one_copy_is_enough(tmp_path: Path, origin: ScriptedOrigin) -> None:
    with small_disk(tmp_path / "small", 259 * MIB + len(DATA)) as disk:
        on = alone(disk / "home", origin)
        done = run_r3mes(on, "pull")
        assert done.returncode == 0, done.stderr
        assert is_verified(on)
        assert not any(on.layout.partial.iterdir())


def test_a_disk_that_is_too_small_by_a_little_says_by_how_much_and_room_is_found_by_the_next_pull(
    tmp_path: Path, origin: ScriptedOrigin
) -> None:
    with small_disk(tmp_path / "small", 257 * MIB) as disk:
        on = alone(disk / "home", origin)
        done = run_r3mes(on, "pull")
        assert done.returncode == 5, done.stderr
        assert origin.sent() == 0
        subprocess.run(["mount", "-o", f"remount,size={300 * MIB}", disk], check=True)
        again = run_r3mes(on, "pull")
        assert again.returncode == 0, again.stderr
        assert is_verified(on)
