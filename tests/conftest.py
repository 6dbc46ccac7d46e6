"""Fixtures for every test: a clean environment, traffic to loopback alone, and a real Redis.

`clean_redis` is the address of an empty server that all tests share; a test that stops, kills or restarts Redis takes
`own_redis`, a server of its own.
"""

import ipaddress
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import redis

from tests.support.redis_server import RedisServer
from tests.support.verifier_process import StartVerifier, VerifierProcess
from tests.support.verifier_store import Store

# A shared two-core machine: an example that once took long says nothing.
hypothesis.settings.register_profile("r3mes", deadline=None)
hypothesis.settings.load_profile("r3mes")

INHERITED = ("R3MES_", "HF_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def _refuse_traffic_beyond_loopback(event: str, arguments: tuple[object, ...]) -> None:
    if event != "socket.connect":
        return
    address = arguments[1]
    if not isinstance(address, tuple):  # a Unix socket
        return
    host = str(address[0])
    try:
        allowed = ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        allowed = host == "localhost"
    if not allowed:
        raise PermissionError(f"a test tried to reach {host}: only loopback is allowed")


sys.addaudithook(_refuse_traffic_beyond_loopback)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing of the user's settings, proxies or ~/.r3mes reaches a test."""
    for name in list(os.environ):
        if name.upper().startswith(INHERITED):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The Redis that all tests share; never stop this one."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def clean_redis(redis_server: RedisServer) -> str:
    """The URL of the shared Redis, emptied."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis for one test, with an append-only file, to stop, kill and restart."""
    with RedisServer(tmp_path / "own-redis", append_only=True) as server:
        yield server


@pytest.fixture
def start_verifier(tmp_path: Path) -> Iterator[StartVerifier]:
    """Start verifiers that end with the test."""
    started: list[VerifierProcess] = []

    def start(store: Store, redis_url: str, **environment: str) -> VerifierProcess:
        started.append(VerifierProcess(store, redis_url, tmp_path, **environment))
        return started[-1]

    yield start
    for verifier in started:
        if verifier.process.poll() is None:
            verifier.kill()
