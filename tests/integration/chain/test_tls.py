"""Nodes over https: the certificate counts, directly and through a proxy's tunnel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from shared.chain import Endpoint, consult
from tests.support.certificates import certificate
from tests.support.chain_nodes import Node, chain_genesis
from tests.support.geneses import DIGEST
from tests.support.tunnel import tunnel


@contextmanager
def tls_nodes(directory: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Endpoint, ...]]:
    context, trusted = certificate(directory, name)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    with ExitStack() as stack:
        nodes = [stack.enter_context(Node(tls=context)) for _ in range(3)]
        for node in nodes:
            node.serve(chain_genesis(DIGEST))
        yield tuple(Endpoint(node.url) for node in nodes)


def test_nodes_with_a_right_certificate_are_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tls_nodes(tmp_path, "IP:127.0.0.1", monkeypatch) as endpoints:
        said = consult(endpoints, {})

    assert said.registry is not None
    assert said.registry.digests == {DIGEST}


def test_nodes_with_the_certificate_of_another_host_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tls_nodes(tmp_path, "DNS:another.example", monkeypatch) as endpoints:
        said = consult(endpoints, {})

    assert said.registry is None
    assert "certificate" in said.describe()


def test_behind_a_proxy_tls_goes_through_a_tunnel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tls_nodes(tmp_path, "IP:127.0.0.1", monkeypatch) as endpoints, tunnel() as (proxy, asked):
        said = consult(endpoints, {"HTTPS_PROXY": proxy})

    assert said.registry is not None
    assert said.registry.digests == {DIGEST}
    assert set(asked) <= {f"CONNECT {endpoint.name} HTTP/1.{minor}" for endpoint in endpoints for minor in (0, 1)}
    assert len(asked) >= 2
