"""Which models of the genesis a person means."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from launcher.model_names import choose, find
from shared.errors import UsageError


@dataclass(frozen=True)
class Model:
    model_name: str
    sha256: str


LLAMA = Model("Llama 3", "0a0a0a0a" + "1" * 56)
TWIN = Model("Twin", "0a0a0a0a" + "2" * 56)
HEX = Model("0a0a0a0a", "f" * 64)
KNOWN = (LLAMA, TWIN, HEX)


@pytest.mark.parametrize(
    ("wanted", "model"),
    [
        ("Llama 3", LLAMA),
        ("llama 3", LLAMA),
        (LLAMA.sha256, LLAMA),
        (LLAMA.sha256.upper(), LLAMA),
        ("0a0a0a0a1", LLAMA),
        ("0a0a0a0a", HEX),  # a name goes before a digest
        ("FFFFFFFF", HEX),
    ],
)
def test_a_model_is_meant_by_its_name_its_digest_or_the_beginning_of_one(wanted: str, model: Model) -> None:
    assert find(wanted, KNOWN) is model


@pytest.mark.parametrize(
    ("wanted", "next_step"),
    [
        ("Lama 3", "did you mean Llama 3?"),
        ("fffffff", "it has: Llama 3, Twin, 0a0a0a0a"),  # seven digits are too few
        ("e" * 64, "it has: Llama 3, Twin, 0a0a0a0a"),
        ("", "it has: Llama 3, Twin, 0a0a0a0a"),
    ],
)
def test_what_is_none_of_them_is_a_usage_error_that_says_what_there_is(wanted: str, next_step: str) -> None:
    with pytest.raises(UsageError) as caught:
        find(wanted, KNOWN)
    assert caught.value.next_step == next_step


def test_the_beginning_of_two_digests_is_neither() -> None:
    with pytest.raises(UsageError, match="Llama 3, Twin"):
        find("0a0a0a0a", (LLAMA, TWIN))


def test_models_come_once_in_the_order_of_the_genesis_and_all_of_them_by_default() -> None:
    assert choose(["0a0a0a0a2", "Llama 3", "twin"], KNOWN) == (LLAMA, TWIN)
    assert choose([], KNOWN) == KNOWN
