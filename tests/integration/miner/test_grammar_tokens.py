"""Which tokens a grammar allows, on the real vocabulary: the short way to know gives what the long one gives."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

from services.miner.grammar.parsed import ParsedGrammar, Pieces, UnparsableError
from services.miner.grammar.schema import ANY_OBJECT, to_gbnf
from services.miner.model.vocabulary import Vocabulary
from tests.integration.miner.stand import model_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def pieces() -> Iterator[Pieces]:
    descriptor = os.open(model_file(), os.O_RDONLY)
    vocabulary = Vocabulary(descriptor)
    yield Pieces(vocabulary)
    vocabulary.close()
    os.close(descriptor)


def tokens(pieces: Pieces, text: str) -> list[int]:
    return pieces.vocabulary.tokenise(text, add_special=False, parse_special=False)


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        ('root ::= "a" [b-d]* | "once"', "abcdbcd"),
        (to_gbnf(ANY_OBJECT), '{"one": [1, 2.5e3, true], "two €": "three 😀 \\n four"}'),
        ("root ::= [a-zé-ü€]+", "aéz€ü"),
        ("root ::= [^x]*", "some words\n\tand\u2028others 🦄"),
        ('root ::= "" | "z"', "z"),
        ("root ::= .*", "ab"),
    ],
)
def test_what_begins_with_a_forbidden_character_need_not_be_asked_for(pieces: Pieces, grammar: str, text: str) -> None:
    parsed = ParsedGrammar(grammar, pieces)
    for token in [*tokens(pieces, text), None]:
        wanted = parsed._apply(pieces.everything) & pieces.shown
        found = parsed.allowed()
        assert np.array_equal(found, wanted)
        if token is not None:
            assert found[token]
            assert parsed.allows(token)
            parsed.accept(token)


def test_a_control_token_is_no_text_even_where_its_name_would_match(pieces: Pieces) -> None:
    (control,) = pieces.vocabulary.tokenise("<|im_start|>", add_special=False, parse_special=True)
    parsed = ParsedGrammar("root ::= .*", pieces)
    assert not parsed.allows(control)
    assert not parsed.allowed()[control]


def test_the_end_is_allowed_when_the_grammar_is_complete_and_not_before(pieces: Pieces) -> None:
    ends = [token for token in range(20) if pieces.vocabulary.ends(token)]
    assert ends
    parsed = ParsedGrammar('root ::= "ab"', pieces)
    assert not any(parsed.allows(token) for token in ends)
    for token in tokens(pieces, "ab"):
        parsed.accept(token)
    assert list(np.flatnonzero(parsed.allowed())) == ends


def test_a_rule_that_names_a_token_by_its_number_is_kept(pieces: Pieces) -> None:
    parsed = ParsedGrammar('root ::= <[2000]> "a"', pieces)
    assert list(np.flatnonzero(parsed.allowed())) == [2000]
    parsed.accept(2000)
    assert all(pieces.vocabulary.piece(int(token), special=True) == b"a" for token in np.flatnonzero(parsed.allowed()))


def test_a_grammar_that_llama_cpp_does_not_take_is_an_error(pieces: Pieces) -> None:
    with pytest.raises(UnparsableError):
        ParsedGrammar("root ::= (", pieces)
