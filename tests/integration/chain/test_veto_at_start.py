"""The chain's veto at `init` and at acceptance: exit 78 before anything is written; no quorum stops nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.acceptance import StartAction, start_host_store
from shared.errors import ConfigurationError
from shared.settings import CommonSettings, load_settings
from shared.store.trust import read_trust
from tests.support.chain_nodes import Node, answers, chain_genesis, chain_of, result, rpc
from tests.support.geneses import DIGEST, OTHER_DIGEST, entry, list_form, other_entry, plain_form
from tests.support.genesis_host import Host, snapshot
from tests.support.origin_server import Answer, status
from tests.support.waiting import wait_until

BOTH = chain_genesis(DIGEST, OTHER_DIGEST)
OTHER = chain_genesis(OTHER_DIGEST)


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    with chain_of(3) as nodes:
        serve(nodes, BOTH)
        yield nodes


@pytest.fixture
def host(tmp_path: Path, nodes: list[Node]) -> Host:
    """A host that pins one model and asks these nodes."""
    host = Host(tmp_path)
    host.file.write_bytes(plain_form())
    host.environ["R3MES_CHAIN_RPC"] = rpc(nodes)
    return host


def serve(nodes: list[Node], genesis: object) -> None:
    for node in nodes:
        node.serve(genesis)


def test_a_chain_that_holds_the_pin_lets_the_start_go_on(host: Host) -> None:
    outcome = host.start()

    assert outcome.action is StartAction.ACCEPT
    assert outcome.chain is not None
    assert "of 3 endpoints agree" in outcome.chain.describe()


def test_a_chain_that_lacks_the_pin_stops_the_first_start_before_anything_is_written(
    host: Host, nodes: list[Node]
) -> None:
    serve(nodes, OTHER)

    error = host.refused()

    assert f"the chain vetoes Tiny ({DIGEST})" in error.message
    assert "R3MES_CHAIN_RPC" in error.next_step
    assert not host.layout.root.exists()


def test_one_pin_that_is_lacking_is_enough(host: Host, nodes: list[Node]) -> None:
    host.file.write_bytes(list_form(entry(), other_entry()))
    serve(nodes, OTHER)

    error = host.refused()

    assert "Tiny" in error.message
    assert "Other" not in error.message


def test_the_chain_supplies_nothing(host: Host) -> None:
    host.start()

    assert [pin.sha256 for pin in read_trust(host.layout).genesis.models] == [DIGEST]


def test_init_asks_at_every_start_and_a_veto_changes_nothing_that_runs(host: Host, nodes: list[Node]) -> None:
    host.start()
    serve(nodes, OTHER)

    host.refused()

    assert read_trust(host.layout).genesis.by_name("Tiny")


def test_one_liar_vetoes_nothing_and_two_do(host: Host, nodes: list[Node]) -> None:
    serve(nodes[:1], OTHER)
    assert host.start().action is StartAction.ACCEPT

    serve(nodes[:2], OTHER)
    assert "vetoes Tiny" in host.refused().message


def test_endpoints_out_of_reach_stop_nothing_and_one_line_says_so(host: Host, nodes: list[Node]) -> None:
    serve(nodes, OTHER)
    for node in nodes[:2]:
        node.scripts["/genesis"] = status(503)

    outcome = host.start()

    assert outcome.action is StartAction.ACCEPT
    assert outcome.chain is not None
    assert "nothing is vetoed" in outcome.chain.describe()


@pytest.mark.parametrize("staged", [False, True])
def test_accept_and_stage_refuse_what_the_chain_vetoes(host: Host, nodes: list[Node], *, staged: bool) -> None:
    host.start()
    host.file.write_bytes(list_form(other_entry()))
    serve(nodes, chain_genesis(DIGEST))
    before = snapshot(host.layout.root)

    with pytest.raises(ConfigurationError, match="the chain vetoes Other"):
        host.accept(staged=staged)
    assert snapshot(host.layout.root) == before

    serve(nodes, BOTH)
    host.accept(staged=staged)
    trust = read_trust(host.layout)
    assert (trust.staged if staged else trust.genesis).by_name("Other")  # type: ignore[union-attr]


def test_a_service_that_starts_first_asks_and_one_that_goes_on_does_not(host: Host, nodes: list[Node]) -> None:
    serve(nodes, OTHER)
    settings = load_settings(CommonSettings, host.environ)
    with pytest.raises(ConfigurationError, match="the chain vetoes"):
        start_host_store(settings, host.environ)
    assert not host.layout.root.exists()

    serve(nodes, BOTH)
    start_host_store(settings, host.environ)
    serve(nodes, OTHER)
    asked = sum(len(node.requests) for node in nodes)
    start_host_store(settings, host.environ)

    assert sum(len(node.requests) for node in nodes) == asked


def test_the_file_is_judged_before_the_chain_is_asked(host: Host, nodes: list[Node]) -> None:
    assert "R3MES_GENESIS_SHA256" in host.refused(R3MES_GENESIS_SHA256="0" * 64).message
    assert all(node.connections == 0 for node in nodes)


def test_nobody_waits_while_the_chain_is_asked_and_what_was_not_asked_about_is_asked_about(
    host: Host, nodes: list[Node], tmp_path: Path
) -> None:
    host.start()
    host.file.unlink()
    accept_while_the_chain_is_asked(host, nodes, [tmp_path / "other.json"])

    outcome = host.start()

    assert outcome.chain is not None
    assert "of 3 endpoints agree" in outcome.chain.describe()
    assert outcome.genesis.by_name("Other") == read_trust(host.layout).genesis.by_name("Other")


def test_a_genesis_that_the_chain_vetoes_is_not_started_because_another_was_asked_about(
    host: Host, nodes: list[Node], tmp_path: Path
) -> None:
    serve(nodes, chain_genesis(DIGEST))
    host.start()
    host.file.unlink()
    accept_while_the_chain_is_asked(host, nodes, [tmp_path / "other.json"], chain_genesis(DIGEST))

    with pytest.raises(ConfigurationError, match="the chain vetoes Other"):
        host.start()


def test_a_genesis_that_changes_whenever_it_is_asked_about_is_not_started(
    host: Host, nodes: list[Node], tmp_path: Path
) -> None:
    host.start()
    host.file.unlink()
    accepted = accept_while_the_chain_is_asked(host, nodes, [tmp_path / f"{index}.json" for index in range(9)])

    with pytest.raises(ConfigurationError, match="changed again and again") as error:
        host.start()

    assert error.value.next_step == "start again"
    assert len(accepted) == 3


def accept_while_the_chain_is_asked(
    host: Host, nodes: list[Node], files: list[Path], genesis: object = BOTH
) -> list[Path]:
    """Let the chain answer its n-th question only once the n-th file has been accepted; return those that were."""
    for index, file in enumerate(files):
        file.write_bytes(list_form(other_entry(required_disk_space_gb=1.0 + index)))
    accepted: list[Path] = []

    def answer_late(node: Node) -> Callable[[Answer], None]:
        questions = itertools.count(1)

        def answer_the_next(answer: Answer) -> None:
            number = min(next(questions), len(files))
            if node is nodes[0] and len(accepted) < number:
                host.accept(R3MES_GENESIS=str(files[number - 1]), R3MES_CHAIN_RPC="")
                accepted.append(files[number - 1])
            wait_until(lambda: len(accepted) >= number, what="the acceptance")
            answers(result({"genesis": genesis}))(answer)

        return answer_the_next

    for node in nodes:
        node.scripts["/genesis"] = answer_late(node)
    return accepted
