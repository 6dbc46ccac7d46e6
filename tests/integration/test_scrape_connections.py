"""Prometheus reads a service every five seconds over one connection, which no service ends just then."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.miner.stand import Miner, Store
from tests.support.downloader_process import Downloader, model
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

BETWEEN_SECONDS = 6.0  # a scrape that comes late


@contextlib.contextmanager
def port_of(service: str, home: Path) -> Iterator[int]:
    if service == "miner":
        with Miner(Store(home)) as miner:  # without a model it tells its metrics as well
            yield miner.port
    else:
        with Downloader(home, model(b"none")) as downloader:
            yield int(downloader.url.rpartition(":")[2])


@pytest.mark.parametrize("service", ["miner", "downloader"])
def test_a_scrape_finds_the_connection_of_the_one_before(service: str, tmp_path: Path) -> None:
    with (
        port_of(service, tmp_path) as port,
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection,
    ):
        connection.connect()
        first = connection.sock
        for _ in range(2):
            connection.request("GET", "/metrics")
            assert b"r3mes_build_info" in connection.getresponse().read()
            read_at = time.monotonic()
            wait_until(lambda at=read_at: time.monotonic() - at > BETWEEN_SECONDS, 10, "the next scrape")  # type: ignore[misc]
        assert connection.sock is first, "http.client opens another one when the old one was closed in order"
