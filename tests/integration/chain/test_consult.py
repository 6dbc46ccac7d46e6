"""Asking a quorum of nodes over real HTTP: what counts as an answer, what as none, and when the chain has a word."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from shared.chain import Consultation, Endpoint, consult
from shared.chain.endpoints import parse_endpoints
from tests.support.chain_nodes import (
    Node,
    answers,
    chain_genesis,
    chain_of,
    drips,
    error,
    floods,
    plain,
    result,
    rpc,
    stalls,
)
from tests.support.geneses import DIGEST, OTHER_DIGEST
from tests.support.origin_server import Answer, in_turn, status

RIGHT = chain_genesis(DIGEST)
WRONG = chain_genesis(OTHER_DIGEST)
SHORT_SECONDS = 1.5


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    """Three nodes that agree."""
    with chain_of(3) as nodes:
        for node in nodes:
            node.serve(RIGHT)
        yield nodes


def ask(nodes: list[Node], seconds: float = 30.0, **environ: str) -> Consultation:
    endpoints = parse_endpoints(rpc(nodes))
    assert isinstance(endpoints, tuple)
    return consult(endpoints, environ, seconds=seconds)


def digests(said: Consultation) -> frozenset[str] | None:
    return None if said.registry is None else said.registry.digests


def test_nodes_that_agree_are_the_word_of_the_chain(nodes: list[Node]) -> None:
    said = ask(nodes)

    assert digests(said) == {DIGEST}
    assert said.describe().startswith("2 of 3 endpoints agree") or said.describe().startswith("3 of 3")


def test_a_large_genesis_comes_in_chunks(nodes: list[Node]) -> None:
    for node in nodes:
        node.serve_chunked(RIGHT)

    assert digests(ask(nodes)) == {DIGEST}
    assert max(len(node.asked("/genesis_chunked")) for node in nodes) > 3


def test_plain_and_chunked_answers_are_one_registry(nodes: list[Node]) -> None:
    nodes[0].serve_chunked(RIGHT)
    nodes[1].scripts["/genesis"] = status(404)

    assert digests(ask(nodes)) == {DIGEST}


def test_geneses_that_differ_elsewhere_agree_on_the_registry(nodes: list[Node]) -> None:
    nodes[0].serve(chain_genesis(DIGEST, initial_height="7"))
    nodes[1].serve(chain_genesis(DIGEST, chain_id="renamed"))
    nodes[2].scripts["/genesis"] = status(404)

    assert digests(ask(nodes)) == {DIGEST}


def test_an_inactive_entry_is_none(nodes: list[Node]) -> None:
    for node in nodes:
        node.serve(chain_genesis(OTHER_DIGEST, inactive=[DIGEST]))

    assert digests(ask(nodes)) == {OTHER_DIGEST}


def test_one_liar_of_three_is_outvoted(nodes: list[Node]) -> None:
    nodes[0].serve(WRONG)

    assert digests(ask(nodes)) == {DIGEST}


def test_two_liars_of_three_that_agree_are_a_quorum(nodes: list[Node]) -> None:
    for liar in nodes[:2]:
        liar.serve(WRONG)

    assert digests(ask(nodes)) == {OTHER_DIGEST}


def test_three_that_say_three_things_are_no_quorum(nodes: list[Node]) -> None:
    nodes[0].serve(WRONG)
    nodes[1].serve(chain_genesis())

    said = ask(nodes)

    assert said.registry is None
    assert "nothing is vetoed" in said.describe()


def test_half_of_four_are_no_quorum() -> None:
    with chain_of(4) as nodes:
        for node in nodes[:2]:
            node.serve(RIGHT)

        assert ask(nodes).registry is None
        nodes[2].serve(RIGHT)
        assert digests(ask(nodes)) == {DIGEST}


def test_the_quorum_is_of_those_that_are_configured_not_of_those_that_answer(nodes: list[Node]) -> None:
    for node in nodes[1:]:
        node.scripts["/genesis"] = status(503)

    assert ask(nodes).registry is None


def test_a_quorum_does_not_wait_for_a_node_that_is_slow(nodes: list[Node]) -> None:
    nodes[0].scripts["/genesis"] = stalls()

    assert digests(ask(nodes, seconds=600.0)) == {DIGEST}


def test_nobody_listens() -> None:
    closed = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [sock.getsockname()[1] for sock in closed]
    for sock in closed:
        sock.close()

    said = consult(tuple(Endpoint(f"http://127.0.0.1:{port}") for port in ports), {})

    assert said.registry is None
    assert "refused" in said.describe()


def _compressed(answer: Answer) -> None:
    body = result({"genesis": RIGHT})
    answer.head(200, {"Content-Length": len(body), "Content-Encoding": "gzip"})
    answer.body(body)


def _short(answer: Answer) -> None:
    body = result({"genesis": RIGHT})
    answer.head(200, {"Content-Length": len(body) + 10})
    answer.body(body)
    answer.cut()


DUPLICATE = result({"genesis": RIGHT}).replace(b'"remes":', b'"remes": {"model_registry_list": []}, "remes":')

LIES = [
    ("not found", status(404), "404"),
    ("a right genesis with an error's status", answers(result({"genesis": RIGHT}), 500), "status 500"),
    ("an error of its own", answers(error("no genesis here"), 500), "no genesis here"),
    ("an HTML page", answers(b"<html>maintenance</html>"), "not JSON"),
    ("nothing", answers(b""), "an empty file"),
    ("JSON of another shape", answers(b'{"genesis": {}}'), "CometBFT"),
    ("a list", answers(b"[]"), "no JSON object"),
    ("no result", answers(b'{"jsonrpc": "2.0", "id": -1}'), "CometBFT"),
    ("another version of JSON-RPC", answers(result({"genesis": RIGHT}).replace(b'"2.0"', b'"3.0"')), "CometBFT"),
    ("a genesis beside another key", answers(result({"genesis": RIGHT, "x": 1})), "chain's genesis"),
    ("a genesis that is no object", answers(result({"genesis": []})), "chain's genesis"),
    ("no registry", plain({"app_state": {"remes": {}}}), "model_registry_list"),
    ("another chain", plain({"app_state": {"bank": {}}}), "remes"),
    ("a registry that is no list", plain({"app_state": {"remes": {"model_registry_list": {}}}}), "list"),
    ("an entry that is no object", plain({"app_state": {"remes": {"model_registry_list": [1]}}}), "object"),
    ("a duplicate key on the way to the registry", answers(DUPLICATE), "twice"),
    ("a truncated genesis", answers(result({"genesis": RIGHT})[:-30]), "JSON"),
    ("a body that ends early", _short, "early"),
    ("compression that nobody asked for", _compressed, "compresses"),
    ("nesting without end", answers(b'{"jsonrpc":"2.0","result":{"genesis":' + b"[" * 100_000 + b"}}"), "genesis"),
    ("a status line that is none", lambda answer: answer.raw(b"garbage\r\n\r\n"), "garbage"),
    ("a reset", lambda answer: answer.reset(), ""),
]


@pytest.mark.parametrize(("what", "lie", "why"), LIES, ids=[case[0] for case in LIES])
def test_a_node_that_gives_no_genesis_counts_as_none_and_the_others_are_heard(
    nodes: list[Node], what: str, lie: Callable[[Answer], None], why: str
) -> None:
    nodes[0].scripts["/genesis"] = lie
    nodes[1].scripts["/genesis"] = lie

    said = ask(nodes)

    assert said.registry is None, what
    assert any(why in problem for problem in said.problems.values()), said.problems
    nodes[1].serve(RIGHT)
    assert digests(ask(nodes)) == {DIGEST}


@pytest.mark.parametrize("trick", [stalls(), drips], ids=["silence", "a byte now and then"])
def test_a_consultation_ends_in_time_whatever_a_node_does(nodes: list[Node], trick: Callable[[Answer], None]) -> None:
    for node in nodes[:2]:
        node.scripts["/genesis"] = trick

    said = ask(nodes, seconds=SHORT_SECONDS)

    assert said.registry is None
    assert "too long" in said.describe()


def test_an_answer_without_end_is_cut_off_and_the_others_are_heard(
    nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 4 * 1024 * 1024
    monkeypatch.setattr("shared.chain.asking.MAX_PLAIN_ANSWER_BYTES", limit)
    nodes[0].scripts["/genesis"] = nodes[1].scripts["/genesis"] = floods

    said = ask(nodes)

    assert said.registry is None
    assert "larger than" in said.describe()
    nodes[1].serve(RIGHT)
    assert digests(ask(nodes)) == {DIGEST}


def _part(number: object, total: object, data: str = "e30=") -> Callable[[Answer], None]:
    return answers(result({"chunk": number, "total": total, "data": data}))


BAD_CHUNKS = [
    ("another chunk than the one asked for", [_part("1", "2")], "genesis_chunked"),
    ("numbers that are not strings", [_part(0, 2)], "genesis_chunked"),
    ("no chunk at all", [_part("0", "0")], "announces"),
    ("chunks without end", [_part("0", "999999999")], "announces"),
    ("a negative number", [_part("0", "-1")], "announces"),
    ("a total that is no number", [_part("0", "two")], "announces"),
    ("a total that changes", [_part("0", "2"), _part("1", "3")], "then 3"),
    ("data that is not base64", [_part("0", "1", "%%%")], "base64"),
    ("no data", [answers(result({"chunk": "0", "total": "1"}))], "genesis_chunked"),
    ("an error in the middle", [_part("0", "2"), answers(error("gone"), 500)], "gone"),
    ("chunks that are no genesis together", [_part("0", "1")], "chain's genesis"),
]


@pytest.mark.parametrize(("what", "turns", "why"), BAD_CHUNKS, ids=[case[0] for case in BAD_CHUNKS])
def test_wrong_chunks_count_as_no_answer(
    nodes: list[Node], what: str, turns: list[Callable[[Answer], None]], why: str
) -> None:
    for node in nodes[:2]:
        node.serve_chunked(RIGHT)
        node.scripts["/genesis_chunked"] = in_turn(*turns)

    said = ask(nodes)

    assert said.registry is None, what
    assert any(why in problem for problem in said.problems.values()), said.problems


def test_chunks_are_bounded_in_all(nodes: list[Node], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.chain.asking.MAX_CHAIN_GENESIS_BYTES", 500)
    for node in nodes:
        node.serve_chunked(RIGHT)

    assert "larger than 500 bytes" in ask(nodes).describe()


def test_a_redirect_is_not_followed_not_even_to_another_endpoint(nodes: list[Node]) -> None:
    with Node() as elsewhere:
        elsewhere.serve(RIGHT)
        nodes[0].lead_to(elsewhere)
        nodes[1].lead_to(nodes[2])

        said = ask(nodes)

    assert said.registry is None
    assert elsewhere.connections == 0
    assert nodes[2].connections <= 1, "its own question alone; two refusals may decide before it is put"
    assert "redirect" in said.describe()


def test_a_proxy_is_asked_for_what_is_behind_it_and_no_proxy_is_heeded(nodes: list[Node]) -> None:
    with Node() as proxy, Node() as other:
        assert ask(nodes, http_proxy=proxy.url).registry is None
        assert proxy.connections >= 2
        assert all(node.connections == 0 for node in nodes)

        assert digests(ask(nodes, http_proxy=other.url, no_proxy="127.0.0.1")) == {DIGEST}
        assert other.connections == 0


def test_a_name_that_leads_to_a_link_local_address_is_not_asked(
    nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    said = ask(nodes)

    assert said.registry is None
    assert "169.254.169.254" in said.describe()


def test_a_path_of_an_endpoint_is_kept(nodes: list[Node]) -> None:
    for node in nodes:
        node.scripts["/rpc/genesis"] = plain(WRONG)
    endpoints = tuple(Endpoint(f"{node.url}/rpc") for node in nodes)

    assert digests(consult(endpoints, {})) == {OTHER_DIGEST}
