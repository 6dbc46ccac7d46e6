"""The lines of the ACL file: tight around one node, without passwords, and without a command that undoes them."""

import hashlib
import re
from fnmatch import fnmatchcase

import pytest

from shared.redis_rights import DOWNLOADER, HEALTH, SERVICES, VERIFIER, acl_file, service_rights

PASSWORDS = {DOWNLOADER: "s3cret-of-one", VERIFIER: "s3cret-of-two"}
LINES = acl_file("local", PASSWORDS).splitlines()
# RQ's switches, and what would give more rights, reach all keys, or run code in Redis.
NEVER = {
    *("flushall", "flushdb", "config", "acl", "debug", "eval", "evalsha", "script", "function", "fcall", "module"),
    *("shutdown", "keys", "scan", "monitor", "replicaof", "slaveof", "sync", "psync", "migrate", "restore", "save"),
    *("bgsave", "bgrewriteaof", "swapdb", "select", "move", "rename", "psubscribe", "client", "info", "sort", "dump"),
}


def granted(service: str, kind: str, node: str = "local") -> list[str]:
    return [right[1:] for right in service_rights(service, node) if right[0] == kind]


def test_nobody_is_in_the_file_but_the_services_and_the_healthcheck() -> None:
    assert [line.split()[:3] for line in LINES] == [
        ["user", "default", "off"],
        ["user", HEALTH, "on"],
        *(["user", service, "on"] for service in SERVICES),
    ]


def test_the_healthcheck_may_ask_and_nothing_else() -> None:
    assert LINES[1].split()[3:] == ["nopass", "resetkeys", "resetchannels", "-@all", "+ping"]


def test_a_password_is_there_as_its_digest_alone() -> None:
    for service, line in zip(SERVICES, LINES[2:], strict=True):
        assert f"#{hashlib.sha256(PASSWORDS[service].encode()).hexdigest()}" in line.split()
    assert "s3cret" not in "".join(LINES)


def test_a_service_without_a_password_is_not_there() -> None:
    assert [line.split()[1] for line in acl_file("local", {}).splitlines()] == ["default", HEALTH]


@pytest.mark.parametrize("service", SERVICES)
def test_no_command_reaches_beyond_the_keys_that_it_names(service: str) -> None:
    commands = granted(service, "+")
    assert commands
    assert not NEVER & set(commands)
    assert not [command for command in commands if command.startswith("@")], "a category grows with Redis's versions"


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("other", ["loca", "local-1", "local2", "1-local", "x"])
def test_no_key_and_no_channel_of_another_node_fits(service: str, other: str) -> None:
    shared = {"rq:queues", "rq:workers"}
    for kind in "~&":
        theirs = [pattern.replace("*", "0:1_2") for pattern in granted(service, kind, other) if pattern not in shared]
        for name in theirs:
            assert not [pattern for pattern in granted(service, kind) if fnmatchcase(name, pattern)], name


@pytest.mark.parametrize("service", SERVICES)
def test_the_dialect_is_that_of_redis_6_2(service: str) -> None:
    for right in service_rights(service, "local"):
        assert re.fullmatch(r"[~&+][a-z0-9:|_*-]+", right), right
