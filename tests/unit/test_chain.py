"""The pure parts of the chain check: quorum, endpoints, registry."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.chain import answers
from shared.chain.answers import NoAnswerError
from shared.chain.endpoints import Endpoint, parse_endpoints
from shared.chain.registry import digests_of_chain_genesis
from shared.chain.verdict import Registry, agreed, is_open
from shared.errors import GenesisError
from shared.genesis import parse_genesis
from tests.support.chain_nodes import chain_genesis
from tests.support.geneses import DIGEST, OTHER_DIGEST, entry, list_form, other_entry

A, B, C = (frozenset({name}) for name in "abc")

WHOLE = b'{"jsonrpc":"2.0","id":-1,"result":{"genesis":{"a":{}}}}'

QUORUMS: list[tuple[str, list[frozenset[str]], int, frozenset[str] | None]] = [
    ("nobody answered", [], 3, None),
    ("one of three", [A], 3, None),
    ("two of three", [A, A], 3, A),
    ("two of three, against one", [A, B, B], 3, B),
    ("three that differ", [A, B, C], 3, None),
    ("half of four", [A, A], 4, None),
    ("two against two", [A, A, B, B], 4, None),
    ("three of four", [A, A, A, B], 4, A),
    ("three of five", [B, A, B, C, B], 5, B),
    ("an empty registry is one", [frozenset(), frozenset()], 3, frozenset()),
]


@pytest.mark.parametrize(("what", "answers", "endpoints", "word"), QUORUMS, ids=[case[0] for case in QUORUMS])
def test_a_quorum_is_more_than_half_of_all(
    what: str, answers: list[frozenset[str]], endpoints: int, word: frozenset[str] | None
) -> None:
    assert agreed(answers, endpoints) == (None if word is None else Registry(word)), what


def test_waiting_ends_once_no_quorum_can_come() -> None:
    assert is_open([], 2, 3)
    assert is_open([A], 1, 3)
    assert not is_open([], 1, 3)
    assert not is_open([A, B], 0, 3)
    assert not is_open([A, B], 1, 4)


def test_a_registry_vetoes_the_pins_that_it_lacks_and_names_no_others() -> None:
    pins = parse_genesis(list_form(entry(), other_entry()), file="genesis").models

    assert Registry(frozenset({OTHER_DIGEST, "f" * 64})).lacks(pins) == (pins[0],)
    assert Registry(frozenset()).lacks(pins) == pins
    assert Registry(frozenset({DIGEST, OTHER_DIGEST})).lacks(pins) == ()


def test_endpoints_are_taken_as_they_stand_without_a_final_slash() -> None:
    found = parse_endpoints(" https://a.example , http://10.0.0.5:26657/, https://c.example/rpc/ ")

    assert found == (
        Endpoint("https://a.example"),
        Endpoint("http://10.0.0.5:26657"),
        Endpoint("https://c.example/rpc"),
    )


def test_a_key_in_an_endpoint_s_path_does_not_stand_in_its_name() -> None:
    assert Endpoint("https://rpc.example/v1/secret").name == "rpc.example:443"


def test_the_registry_s_digests_are_those_of_active_entries_in_lower_case() -> None:
    genesis = chain_genesis(DIGEST.upper(), inactive=[OTHER_DIGEST])

    assert digests_of_chain_genesis(BytesIO(json.dumps(genesis).encode())) == {DIGEST}


def test_camel_case_keys_are_read_and_entries_that_pin_nothing_are_left_out() -> None:
    registry = [
        {"isActive": True, "config": {"verificationSha256": DIGEST}},
        {"is_active": True, "config": {"encrypted_weights_ipfs_hash": "Qm"}},
        {"is_active": "true", "config": {"verification_sha256": OTHER_DIGEST}},
        {"is_active": True},
    ]
    genesis = {"app_state": {"remes": {"model_registry_list": registry}}}

    assert digests_of_chain_genesis(BytesIO(json.dumps(genesis).encode())) == {DIGEST}


@pytest.mark.parametrize("raw", [b"", b"{}", b"[" * 100_000, b'{"app_state": {"remes": []}}', b"\xff"])
def test_what_is_no_chain_genesis_has_no_registry(raw: bytes) -> None:
    with pytest.raises(GenesisError):
        digests_of_chain_genesis(BytesIO(raw))


ENVELOPES = [
    ("compact", WHOLE),
    ("indented", b'{\n  "jsonrpc": "2.0",\n  "id": -1,\n  "result": {\n    "genesis": {"a":{}}\n  }\n}\n'),
    ("without an id", b'{"jsonrpc":"2.0","result":{"genesis":{"a":{}}}}'),
    ("with a text for an id", b'{"jsonrpc":"2.0","id":"x","result":{"genesis":{"a":{}}}}'),
    ("in another order", b'{"id":1,"jsonrpc":"2.0","result":{"genesis":{"a":{}}}}'),
]


@pytest.mark.parametrize(("what", "raw"), ENVELOPES, ids=[case[0] for case in ENVELOPES])
def test_the_genesis_is_taken_out_of_its_envelope_byte_by_byte(what: str, raw: bytes) -> None:
    found = answers.plain_genesis(raw)

    assert found is not None, what
    assert found.rstrip() == b'{"a":{}}'


@given(st.binary(max_size=300) | st.binary(max_size=30).map(lambda noise: WHOLE[:30] + noise + WHOLE[30:]))
@example(b'{"jsonrpc":"2.0","id":-1,"error":{"data":["genesis_chunked"]}}')
@example(b'{"jsonrpc":"2.0","id":-1,"error":[]}')
@example(b'{"result":{"chunk":"0","total":"1","data":"\\ud800"}}')
def test_no_answer_crashes_its_readers(raw: bytes) -> None:
    readers: tuple[Callable[[bytes], object], ...] = (answers.plain_genesis, lambda raw: answers.chunk(raw, 0))
    for read in readers:
        try:
            found = read(raw)
        except NoAnswerError:
            continue
        assert found is None or isinstance(found, bytes | answers.Chunk)
