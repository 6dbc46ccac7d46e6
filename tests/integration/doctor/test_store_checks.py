"""The checks of the store, the genesis and the settings, on a disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.doctor.probes import settings, store, trust
from tests.support.doctor_host import DATA, FAILED, OK, TOKEN, WARNING, DoctorHost, only, put_verified
from tests.support.downloader_process import sha256

MEMORY = Path("/dev/shm")  # noqa: S108  where Linux has it


def test_a_host_store_is_looked_at_and_not_changed(host: DoctorHost) -> None:
    host.accept()
    path = put_verified(host.layout)
    subject = host.subject()
    for check in (store.check_kind, store.check_room, store.check_rights, store.check_models, trust.check_genesis):
        assert [each.status for each in check(subject)] == [OK]
    kept = host.subject(R3MES_STORE_KIND="container")
    with pytest.raises(Exception, match="is a host store"):
        store.check_kind(kept)
    path.chmod(0o644)
    assert only(store.check_models(subject)).status is WARNING  # the receipt's time of change as well
    host.layout.incoming.chmod(0o777)
    name = str(path.relative_to(host.layout.root))
    assert [each.about for each in store.check_rights(subject)] == ["incoming", name]


def test_deep_finds_one_bit_where_receipts_alone_do_not_look(host: DoctorHost) -> None:
    host.accept()
    path = put_verified(host.layout)
    assert only(store.check_models(host.subject(deep=True))).status is OK
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"X")
    assert only(store.check_models(host.subject())).status is WARNING
    verdict = only(store.check_models(host.subject(deep=True)))
    assert (verdict.status, verdict.exit_code) == (FAILED, 3)


def test_too_little_room_is_5(tmp_path: Path) -> None:
    host = DoctorHost(tmp_path, required_disk_space_gb=10**6, size_bytes=10**14)
    verdict = only(store.check_room(host.subject()))
    assert (verdict.status, verdict.exit_code) == (FAILED, 5)


def test_the_file_system_is_tried_and_nothing_is_left_in_it(host: DoctorHost) -> None:
    verdict = only(store.check_file_system(host.subject()))
    assert verdict.details["type"]
    assert verdict.details["unnamed_files"] is not None
    assert not host.layout.root.exists()
    assert list(host.home.iterdir()) == []


def test_a_file_system_in_memory_is_known(host: DoctorHost) -> None:
    if store.file_system_of(MEMORY) != "tmpfs":
        pytest.skip("no file system in memory here")
    verdict = only(store.check_file_system(host.subject(R3MES_MODELS_DIR=str(MEMORY / "r3mes-is-not-there"))))
    assert verdict.status is WARNING


def test_a_changed_genesis_and_a_placeholder_are_78(host: DoctorHost) -> None:
    host.accept()
    host.genesis.write_text(host.genesis.read_text().replace("Tiny", "Other"))
    verdict = only(trust.check_genesis(host.subject()))
    assert (verdict.status, verdict.exit_code) == (FAILED, 78)
    assert "genesis accept" in verdict.next_step
    host.genesis.write_text(host.genesis.read_text().replace(sha256(DATA), "<your sha256>"))
    assert "placeholder" in only(trust.check_genesis(host.subject())).summary


def test_unknown_names_in_env_file_and_environment_are_78(host: DoctorHost) -> None:
    verdicts = settings.check_settings(host.subject(R3MES_MODLE="x", R3MES_NODE="Not A Node"))
    assert {each.exit_code for each in verdicts} == {78}
    assert any("did you mean R3MES_MODEL" in each.next_step for each in verdicts)
    (host.project / "docker-compose.yml").touch()
    (host.project / ".env").write_text("R3MES_GENESIZ=x\n")
    verdict = only(settings.check_settings(host.subject()))
    assert "R3MES_GENESIZ" in verdict.summary
    assert verdict.exit_code == 78


@pytest.mark.slow
def test_a_value_that_a_service_would_refuse_is_78_and_names_the_service(host: DoctorHost) -> None:
    verdicts = settings.check_settings(host.subject(R3MES_SCRUB_HOURS="often", R3MES_N_CTX="many"))
    assert {each.about for each in verdicts if each.status is FAILED} == {"verifier", "miner"}


def test_a_secret_s_file_is_in_reach_only_where_each_folder_lets_others_in(host: DoctorHost) -> None:
    secret = host.project / "token"
    secret.write_text(TOKEN)
    secret.chmod(0o644)
    subject = host.subject(HF_TOKEN_FILE="token")
    assert subject.secret("HF_TOKEN") == TOKEN
    host.project.chmod(0o700)
    assert only(settings.check_secret_files(subject)).status is OK
    secret.unlink()
    verdict = only(settings.check_secret_files(subject))
    assert (verdict.status, verdict.exit_code) == (FAILED, 78)
