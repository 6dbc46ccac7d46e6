import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from shared.errors import ConfigurationError
from shared.metrics import CommonMetrics
from shared.process_server import ProcessServer
from shared.settings import ListenAddress
from shared.version import __version__


class Served:
    def __init__(self, host: str = "127.0.0.1") -> None:
        self.readiness = (False, "not yet")
        registry = CollectorRegistry()
        self.metrics = CommonMetrics(registry)
        self.server = ProcessServer(ListenAddress(host, 0), ready=lambda: self.readiness, registry=registry)
        self.server.start()

    def get(self, path: str, method: str = "GET") -> tuple[int, bytes, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.server.port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, answer.read(), answer.headers["Content-Type"]
        except urllib.error.HTTPError as error:
            return error.code, error.read(), error.headers["Content-Type"]


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.server.stop()


def test_it_lives_before_it_is_ready(served: Served) -> None:
    assert served.get("/healthz")[0] == 200
    status, body, _ = served.get("/readyz")
    assert (status, json.loads(body)) == (503, {"ready": False, "reason": "not yet"})
    served.readiness = (True, "")
    assert served.get("/readyz")[0] == 200


def test_metrics_tell_version_and_one_genesis(served: Served) -> None:
    served.metrics.set_genesis("a" * 64)
    served.metrics.set_genesis("b" * 64)
    status, body, content_type = served.get("/metrics")
    assert status == 200
    assert content_type.startswith("text/plain")
    text = body.decode()
    assert f'r3mes_build_info{{version="{__version__}"}} 1.0' in text
    assert f'r3mes_genesis_info{{sha256="{"b" * 64}"}} 1.0' in text
    assert "a" * 64 not in text


def test_other_paths_and_methods_are_refused(served: Served) -> None:
    assert served.get("/")[0] == 404
    assert served.get("/metrics/../etc")[0] == 404
    assert served.get("/metrics", "POST")[0] == 501


def test_head_has_no_body_and_a_query_is_ignored(served: Served) -> None:
    assert served.get("/healthz", "HEAD")[:2] == (200, b"")
    assert served.get("/healthz?x=1")[0] == 200


def test_a_client_that_says_nothing_holds_up_nobody(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.server.port)):
        assert served.get("/healthz")[0] == 200


def test_a_port_in_use_is_a_configuration_error(served: Served) -> None:
    with pytest.raises(ConfigurationError, match="cannot listen"):
        ProcessServer(
            ListenAddress("127.0.0.1", served.server.port), ready=lambda: (True, ""), registry=CollectorRegistry()
        )


def test_it_listens_on_ipv6_too() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        served = Served("::1")
    except ConfigurationError:
        pytest.skip("no IPv6 loopback here")
    try:
        with urllib.request.urlopen(f"http://[::1]:{served.server.port}/healthz", timeout=5) as answer:
            assert answer.status == 200
    finally:
        served.server.stop()
