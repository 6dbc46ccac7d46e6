"""The private Redis that the tests and `r3mes demo` start."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.errors import NotReadyError
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until


def test_it_answers_on_loopback_and_only_with_the_password(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.ping()
        assert client.config_get("bind")["bind"] == "127.0.0.1"
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
    once = Retry(NoBackoff(), retries=0)
    with redis.Redis(port=redis_server.port, retry=once) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_the_password_stands_in_private_files_alone(redis_server: RedisServer) -> None:
    for path in (redis_server.directory / "redis.conf", redis_server.url_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert redis_server.url_file.read_text().strip() == redis_server.url
    password = redis_server.url.split(":")[2].partition("@")[0]
    assert redis_server.pid is not None
    assert password not in " ".join(psutil.Process(redis_server.pid).cmdline())


def test_appended_data_survives_a_kill_on_the_same_address(own_redis: RedisServer) -> None:
    url = own_redis.url
    with redis.Redis.from_url(url) as client:
        client.set("kept", "yes")
        own_redis.kill()
        assert not own_redis.running
        own_redis.start()
        assert own_redis.url == url
        assert client.get("kept") == b"yes"


def test_a_restart_without_append_only_is_empty(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        client.set("lost", "yes")
        server.restart()
        assert client.get("lost") is None


def test_clean_redis_is_empty(clean_redis: str) -> None:
    with redis.Redis.from_url(clean_redis) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


def test_it_does_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import signal, sys\nfrom pathlib import Path\nfrom launcher.redis_server import RedisServer\n"
        f"server = RedisServer(Path({str(tmp_path)!r}))\nserver.start()\n"
        "print(server.pid, flush=True)\nsignal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert "redis-server" in child.name()
        os.kill(parent.pid, signal.SIGKILL)
    wait_until(lambda: not child.is_running(), 5, "Redis ends with its parent")


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho no such luck\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(NotReadyError, match="no such luck"):
        RedisServer(tmp_path / "data", executable=broken).start()
