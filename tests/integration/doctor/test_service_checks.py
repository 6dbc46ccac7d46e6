"""Redis, ports and the services behind them: real ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from pytest_httpserver import HTTPServer

from launcher.doctor.judges.stack import Holder
from launcher.doctor.probes import redis as redis_probe
from launcher.doctor.probes import stack
from launcher.doctor.probes.owners import owner_of
from launcher.doctor.verdict import Status
from launcher.endpoints import demo_directory, write_endpoints
from launcher.ports import free_port
from shared.process_server import ProcessServer
from shared.settings import ListenAddress
from tests.support.doctor_host import FAILED, OK, SKIPPED, WARNING, DoctorHost, only
from tests.support.redis_server import RedisServer


def test_redis_as_compose_makes_it_is_fine(host: DoctorHost, own_redis: RedisServer) -> None:
    verdict = only(redis_probe.check_redis(host.subject(R3MES_REDIS_URL_FILE=str(own_redis.url_file))))
    assert verdict.status is OK, verdict
    assert verdict.details["maxmemory_policy"] == "noeviction"


def test_redis_that_forgets_or_refuses_is_named_and_no_password_shown(host: DoctorHost, clean_redis: str) -> None:
    assert [each.status for each in redis_probe.check_redis(host.subject(R3MES_REDIS_URL=clean_redis))] == [WARNING]
    place = clean_redis.rpartition("@")[2]
    for url in (f"redis://:not-the-password@{place}", f"redis://{place}"):
        verdict = only(redis_probe.check_redis(host.subject(R3MES_REDIS_URL=url)))
        assert (verdict.status, verdict.exit_code) == (FAILED, 78)
        assert "not-the-password" not in verdict.summary


def test_a_service_s_own_user_may_come_in_and_ask_no_more(host: DoctorHost, tmp_path: Path) -> None:
    with RedisServer(tmp_path / "acl-redis", node="local") as server:
        verdict = only(redis_probe.check_redis(host.subject(R3MES_REDIS_URL=server.service_url("downloader"))))
    assert verdict.status is OK, verdict


def test_redis_that_is_away_is_6_and_somebody_else_is_78(host: DoctorHost, httpserver: HTTPServer) -> None:
    away = only(redis_probe.check_redis(host.subject(R3MES_REDIS_URL="redis://127.0.0.1:1/0")))
    assert (away.status, away.exit_code) == (FAILED, 6)
    other = only(redis_probe.check_redis(host.subject(R3MES_REDIS_URL=f"redis://127.0.0.1:{httpserver.port}/0")))
    assert (other.status, other.exit_code) == (FAILED, 78)
    wrong = only(redis_probe.check_redis(host.subject(R3MES_REDIS_URL="redis://127.0.0.1:port/0")))
    assert wrong.exit_code == 78


@pytest.fixture
def waiting_service() -> Iterator[ProcessServer]:
    """A service that lives and is not ready."""
    server = ProcessServer(
        ListenAddress("127.0.0.1", 0), ready=lambda: (False, "no verified model yet"), registry=CollectorRegistry()
    )
    server.start()
    yield server
    server.stop()


def test_a_port_is_free_ours_or_somebody_s_whose_name_is_known(
    waiting_service: ProcessServer, httpserver: HTTPServer
) -> None:
    look_at = stack._look_at
    assert look_at(free_port(), "miner").holder is Holder.NOBODY
    assert look_at(waiting_service.port, "miner").holder is Holder.OURS
    other = look_at(httpserver.port, "miner")
    assert other.holder is Holder.OTHER
    assert f"(pid {os.getpid()})" in other.owner
    assert owner_of(free_port()) == ""


def test_a_redis_is_known_by_its_answer(own_redis: RedisServer, httpserver: HTTPServer) -> None:
    assert stack._look_at(own_redis.port, "redis").holder is Holder.OURS
    assert stack._look_at(httpserver.port, "redis").holder is Holder.OTHER


def test_a_service_that_is_not_ready_is_6_with_its_reason(host: DoctorHost, waiting_service: ProcessServer) -> None:
    directory = demo_directory(host.layout.root)
    directory.mkdir(parents=True)
    away = f"http://127.0.0.1:{free_port()}"
    urls = {"miner": f"http://127.0.0.1:{waiting_service.port}", "downloader": away, "verifier": away}
    write_endpoints(directory, urls)  # type: ignore[arg-type]
    verdicts = stack.check_services(host.subject(R3MES_URL=""))
    assert [(each.status, each.about) for each in verdicts] == [(FAILED, "miner"), (SKIPPED, "")]
    assert verdicts[0].exit_code == 6
    assert "no verified model yet" in verdicts[0].summary


@pytest.mark.parametrize(
    ("status", "said", "expected"), [(200, "ready\n", (OK, 0)), (503, "no miner is ready\n", (FAILED, 6))]
)
def test_a_gateway_says_how_its_miners_are_and_is_sent_no_key(
    host: DoctorHost, httpserver: HTTPServer, status: int, said: str, expected: tuple[Status, int]
) -> None:
    httpserver.expect_request("/healthz").respond_with_data("alive\n")
    httpserver.expect_request("/readyz").respond_with_data(said, status=status)
    httpserver.expect_request("/api/v1/status").respond_with_json({"models": []})
    subject = host.subject(R3MES_URL=httpserver.url_for("").rstrip("/"), R3MES_API_KEYS="key-one,key-two")
    found = {each.about: (each.status, each.exit_code) for each in stack.check_services(subject)}
    assert found == {"downloader": (OK, 0), "miner": expected, "": (SKIPPED, 0)}
    assert all("Authorization" not in request.headers for request, _ in httpserver.log)
    assert stack._look_at(httpserver.port, "gateway").holder is Holder.OURS
