"""SIGKILL at every step of a start and of an acceptance: the old pair, the new pair, or nothing that anyone trusts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from shared.acceptance import StartAction, accept, load_init_settings, plan_acceptance, stage, start_store
from shared.errors import ConfigurationError, StoreError
from shared.genesis import parse_genesis
from shared.store.layout import StoreLayout
from shared.store.trust import read_trust
from tests.support.geneses import OTHER_DIGEST, plain_form
from tests.support.killing import killed_at_each_step

OLD = plain_form()
NEW = plain_form(verification_sha256=OTHER_DIGEST)
THIRD = plain_form(model_name="Third")


class Host:
    """An operator's file and a store that can be started and accepted."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.file = folder / "genesis.json"
        self.layout = StoreLayout(folder / "store")
        self._environ = {"R3MES_MODELS_DIR": str(self.layout.root), "R3MES_GENESIS": str(self.file)}

    def start(self) -> StartAction | str:
        """Start, and return what was done, or the words with which it was refused."""
        settings, values = load_init_settings(self._environ, project=self.file.parent)
        try:
            return start_store(settings, values).action
        except ConfigurationError as error:
            return error.message

    def accept(self, *, staged: bool = False) -> None:
        plan = plan_acceptance(*load_init_settings(self._environ, project=self.file.parent))
        (stage if staged else accept)(plan)

    def trusted(self) -> str:
        """Return the digest of the genesis that a service would take, or "nothing"."""
        try:
            return read_trust(self.layout).genesis.sha256
        except StoreError:
            return "nothing"

    def left_behind(self) -> list[Path]:
        return list(self.layout.root.rglob(".*.json.*"))


def digest(raw: bytes) -> str:
    return parse_genesis(raw, file="test").sha256


@pytest.mark.slow
def test_a_first_start_killed_anywhere_is_finished_by_the_next_one(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    seen = set()

    def prepare() -> None:
        shutil.rmtree(host.layout.root, ignore_errors=True)
        host.file.write_bytes(OLD)

    for _ in killed_at_each_step(host.start, prepare):
        seen.add(host.trusted())
        assert host.start() in {StartAction.ACCEPT, StartAction.REPAIR, StartAction.GO_ON}
        assert host.trusted() == digest(OLD)
        assert host.layout.store_json.exists()
        assert not host.left_behind()

    assert seen == {digest(OLD), "nothing"}


@pytest.mark.slow
def test_an_acceptance_killed_anywhere_leaves_the_old_the_new_or_nothing_trusted(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    seen = set()

    def prepare() -> None:
        """Accept OLD again, whatever the last death left, stage a third, and put NEW in the operator's place."""
        host.file.write_bytes(OLD)
        host.accept()
        host.file.write_bytes(THIRD)
        host.accept(staged=True)
        host.file.write_bytes(NEW)

    for _ in killed_at_each_step(host.accept, prepare):
        found = host.trusted()
        seen.add(found)
        result = host.start()
        if found == digest(OLD):
            # Nothing was written yet: a start refuses the changed file, and what ran still runs.
            assert "is not the genesis that was accepted" in result
            assert host.trusted() == digest(OLD)
        else:
            assert result is (StartAction.REPAIR if found == "nothing" else StartAction.GO_ON)
            assert host.trusted() == digest(NEW)
        host.accept()
        assert host.trusted() == digest(NEW)
        assert not host.left_behind()

    assert seen == {digest(OLD), digest(NEW), "nothing"}


@pytest.mark.slow
def test_a_staging_killed_anywhere_changes_nothing_that_is_accepted(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    seen = set()

    def prepare() -> None:
        """Accept OLD again, with THIRD staged, and put NEW in the operator's place."""
        host.file.write_bytes(OLD)
        host.accept()
        host.file.write_bytes(THIRD)
        host.accept(staged=True)
        host.file.write_bytes(NEW)

    def stage_it_and_one_step_more() -> None:
        host.accept(staged=True)
        os.close(os.open(os.devnull, os.O_RDONLY))

    for _ in killed_at_each_step(stage_it_and_one_step_more, prepare):
        trust = read_trust(host.layout)
        assert trust.genesis.sha256 == digest(OLD)
        assert trust.staged is not None
        seen.add(trust.staged.sha256)
        host.accept(staged=True)
        assert not host.left_behind()

    assert seen == {digest(THIRD), digest(NEW)}
