"""What Docker runs inside a container: alive is who answers 200, on whatever address it listens."""

import os
import subprocess
import sys

import pytest
from pytest_httpserver import HTTPServer

from launcher.ports import free_port
from shared.healthcheck import is_alive


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])  # noqa: S104  (asked over loopback)
def test_a_service_that_answers_is_alive(httpserver: HTTPServer, host: str) -> None:
    httpserver.expect_request("/healthz").respond_with_data("ok")
    assert is_alive(f"{host}:{httpserver.port}")


def test_one_that_answers_something_else_is_not(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/healthz").respond_with_data("no", status=503)
    assert not is_alive(f"127.0.0.1:{httpserver.port}")


def test_where_nobody_listens_nobody_is_alive() -> None:
    assert not is_alive(f"127.0.0.1:{free_port()}")
    assert not is_alive(f"[::]:{free_port()}")


def test_the_command_says_it_by_its_exit_code(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/healthz").respond_with_data("ok")
    for port, code in ((httpserver.port, 0), (free_port(), 1)):
        environment = os.environ | {"R3MES_LISTEN": f"0.0.0.0:{port}"}
        done = subprocess.run([sys.executable, "-m", "shared.healthcheck"], env=environment, check=False)
        assert done.returncode == code
