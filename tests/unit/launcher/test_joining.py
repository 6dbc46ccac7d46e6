"""Another host joins this one's Redis: users of its own, and a script that leaves there what it needs and no more."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from launcher.credentials import ACL_FILE, OWNERS, URL_FILE, prepare_credentials, read_password
from launcher.joining import joining_script, read_ca
from shared.errors import ConfigurationError, UsageError
from shared.redis_rights import acl_file

ME = (os.geteuid(), os.getegid())
CA = "-----BEGIN CERTIFICATE-----\nit's one\n-----END CERTIFICATE-----\n"


def prepare(volume: Path, *joined: str) -> None:
    owners = dict.fromkeys(OWNERS, ME)
    assert prepare_credentials(volume, "local", given=False, joined=joined, owners=owners, root_owner=ME) is not None


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    path = tmp_path / "credentials"
    path.mkdir()
    prepare(path, "gpu2", "gpu3")
    return path


def test_each_host_that_joins_has_two_users_with_passwords_of_their_own(volume: Path) -> None:
    names = [f"{service}{host}" for host in ("", "-gpu2", "-gpu3") for service in ("downloader", "verifier")]
    passwords = {name: read_password(volume / name) for name in names}
    assert len(set(passwords.values()) - {None}) == 6
    for name in names[2:]:
        assert stat.S_IMODE((volume / name / URL_FILE).stat().st_mode) == 0o400
    text = (volume / "redis" / ACL_FILE).read_text()
    assert text == acl_file("local", {n: p for n, p in passwords.items() if p is not None}, ("gpu2", "gpu3"))
    line = next(line for line in text.splitlines() if line.startswith("user verifier-gpu2 "))
    assert "~rq:queue:verify:gpu2 " in line
    assert "local" not in line
    assert "gpu3" not in line


def test_a_host_that_leaves_loses_its_users_and_keeps_its_passwords_should_it_come_back(volume: Path) -> None:
    before = read_password(volume / "downloader-gpu2")
    prepare(volume, "gpu3")
    assert "gpu2" not in (volume / "redis" / ACL_FILE).read_text()
    prepare(volume, "gpu2", "gpu3")
    assert read_password(volume / "downloader-gpu2") == before
    assert "user downloader-gpu2 " in (volume / "redis" / ACL_FILE).read_text()


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh"], input=script, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("redis", "place"),
    [("central.example", ("central.example", 6380)), ("10.0.0.1:7000", ("10.0.0.1", 7000)), ("[::1]", ("::1", 6380))],
)
def test_the_script_leaves_addresses_the_ca_and_the_settings(
    volume: Path, tmp_path: Path, redis: str, place: tuple[str, int]
) -> None:
    (tmp_path / "compose.miner.yml").touch()
    done = run(joining_script(volume, "gpu2", redis, CA), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "next, here: make up" in done.stderr
    assert ":compose.gpu.yml" in done.stderr.splitlines()[-1], "else a host with GPUs works on its processor"
    assert (tmp_path / ".env").read_text() == "COMPOSE_FILE=docker-compose.yml:compose.miner.yml\nR3MES_NODE=gpu2\n"
    for service in ("downloader", "verifier"):
        url = urlsplit((tmp_path / "secrets" / service / "redis_url").read_text().strip())
        assert (url.scheme, url.username, url.hostname, url.port) == ("rediss", f"{service}-gpu2", *place)
        assert url.password == read_password(volume / f"{service}-gpu2")
        assert url.query == f"ssl_ca_certs=/run/secrets/{service}/redis-ca.pem"
        assert (tmp_path / "secrets" / service / "redis-ca.pem").read_text() == CA


def test_the_script_writes_nothing_elsewhere_and_over_no_settings(volume: Path, tmp_path: Path) -> None:
    script = joining_script(volume, "gpu2", "central.example", CA)
    assert run(script, tmp_path).returncode == 78
    (tmp_path / "compose.miner.yml").touch()
    (tmp_path / ".env").write_text("mine\n")
    done = run(script, tmp_path)
    assert (done.returncode, (tmp_path / ".env").read_text()) == (78, "mine\n")
    assert "next: " in done.stderr
    assert not (tmp_path / "secrets").exists()


@pytest.mark.parametrize("redis", ["", ":6380", "a b", "central:", "central:x", "me@central", "central/0", "$(id)"])
def test_a_place_that_is_none_is_refused(volume: Path, redis: str) -> None:
    with pytest.raises(UsageError, match="wanted HOST"):
        joining_script(volume, "gpu2", redis, CA)


def test_a_host_without_passwords_is_told_how_it_gets_them(volume: Path) -> None:
    with pytest.raises(ConfigurationError, match="no password for downloader-gpu4"):
        joining_script(volume, "gpu4", "central.example", CA)


@pytest.mark.parametrize("content", [None, "", "no certificate", CA + "-----BEGIN PRIVATE KEY-----\n"])
def test_only_a_certificate_is_handed_over(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "secrets" / "redis").mkdir(parents=True)
        (tmp_path / "secrets" / "redis" / "ca.pem").write_text(content)
    with pytest.raises(ConfigurationError, match=r"no certificate in secrets/redis/ca\.pem"):
        read_ca(tmp_path)
