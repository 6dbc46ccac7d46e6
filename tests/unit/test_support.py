"""The tests' own guards hold."""

import os
import socket
from pathlib import Path

import pytest

from tests.support.waiting import wait_until


def test_wait_until_returns_what_became_true() -> None:
    answers = iter([0, None, "there"])
    assert wait_until(lambda: next(answers), 1, "an answer") == "there"


def test_wait_until_fails_with_what_it_waited_for() -> None:
    with pytest.raises(AssertionError, match="the moon to be square"):
        wait_until(lambda: False, 0.05, "the moon to be square")


def test_traffic_beyond_loopback_is_refused() -> None:
    with socket.socket() as sock, pytest.raises(PermissionError, match="only loopback"):
        sock.connect(("192.0.2.1", 80))


def test_home_is_not_the_users() -> None:
    assert Path("~").expanduser() == Path(os.environ["HOME"])
    assert "pytest" in os.environ["HOME"]
