"""An import that is killed or interrupted: nothing wrong is promoted, nothing is left to a person to repair."""

from __future__ import annotations

import itertools
import os
import random
import signal
from pathlib import Path

import pytest

from services.downloader.run_once import Completed, adopt_once
from services.downloader.transfer.incoming import read_journal
from services.downloader.transfer.ranges import covered
from shared.store.trust import read_trust
from tests.support.downloader_process import MIB, sha256
from tests.support.import_child import KILLED, import_in_child
from tests.support.importing import host, incoming_names, is_verified, state_of

SMALL = os.urandom(100_000)
# Changes of the disk between two kills, the first of which is drawn by chance; 1 tries them all, in about 12 s.
STRIDE = 8
LARGE = os.urandom(33 * MIB)


@pytest.mark.slow
def test_killed_before_any_change_of_the_disk_the_same_command_ends_verified(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(SMALL)
    before_all = state_of(file)
    digest = sha256(SMALL)
    deaths = 0
    for before in itertools.count(random.randint(1, STRIDE), STRIDE):  # noqa: S311
        on = host(tmp_path / str(before), SMALL)
        code = import_in_child(on.environ, on.home, file, before=before)
        log = f"killed before change {before}: {(on.home / 'import.log').read_text()}"
        if code == 0:
            break
        assert code == KILLED, log
        deaths += 1
        assert all(sha256(path.read_bytes()) == digest for path in on.layout.verified.glob("*/*.gguf")), log
        assert import_in_child(on.environ, on.home, file) == 0, log
        assert is_verified(on, digest), log
        assert (on.layout.root / "tiny.gguf").resolve() == on.layout.verified_file(digest, "tiny.gguf"), log
        assert not {"data", "journal.json"} & set(incoming_names(on.layout, digest)), log
        assert state_of(file) == before_all, log
    assert deaths * STRIDE >= 56, "the changes of the disk were not seen"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle_what_is_durable_is_kept_and_gone_on_from(tmp_path: Path, number: signal.Signals) -> None:
    on = host(tmp_path, LARGE)
    file = tmp_path / "file"
    file.write_bytes(LARGE)
    digest = sha256(LARGE)
    code = import_in_child(on.environ, on.home, file, before=7, of=frozenset({"pwrite"}), number=number)
    log = (on.home / "import.log").read_text()
    assert code == (KILLED if number is signal.SIGKILL else 130), log
    kept = read_journal(on.layout, digest)
    assert kept is not None
    assert not kept.complete
    if number is not signal.SIGKILL:
        assert "what is there is kept" in log
        assert incoming_names(on.layout, digest) == ["data", "journal.json"]
        assert 0 < covered(kept.ranges) < len(LARGE)

    pin = read_trust(on.layout).genesis.models[0]
    assert adopt_once(on.layout, pin, file) == Completed(len(LARGE))
    complete = read_journal(on.layout, digest)
    assert complete is not None
    assert complete.generation == kept.generation
    assert import_in_child(on.environ, on.home, file) == 0
    assert is_verified(on, digest)
