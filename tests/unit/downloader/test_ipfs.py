"""Which gateways are asked: all together at first, after wrong bytes one alone, each in its turn."""

from __future__ import annotations

import pytest

from services.downloader.sources.ipfs import in_turn, is_spread, tries
from services.downloader.sources.web import Address, pin_revision

KUBO, IO, DWEB = (Address(f"https://{name}/ipfs/x") for name in ("kubo.example", "ipfs.io", "dweb.link"))
COMMIT = "ab" * 20


@pytest.mark.parametrize(
    ("mismatches", "spread", "order"),
    [
        (0, True, (KUBO, IO, DWEB)),
        (1, False, (KUBO, IO, DWEB)),
        (2, False, (IO, DWEB, KUBO)),
        (3, False, (DWEB, KUBO, IO)),
    ],
)
def test_every_gateway_has_a_turn_alone(mismatches: int, spread: bool, order: tuple[Address, ...]) -> None:
    assert is_spread(mismatches) is spread
    assert in_turn((KUBO, IO, DWEB), mismatches) == order
    assert mismatches < tries(len(order))


def test_one_gateway_has_two_tries_like_any_source() -> None:
    assert tries(1) == 2


@pytest.mark.parametrize(
    ("url", "pinned"),
    [
        ("https://huggingface.co/o/r/resolve/main/f.gguf", f"https://huggingface.co/o/r/resolve/{COMMIT}/f.gguf"),
        (
            "https://hf.example/o/r/resolve/v1/sub/f.gguf?download=true",
            f"https://hf.example/o/r/resolve/{COMMIT}/sub/f.gguf?download=true",
        ),
        (f"https://huggingface.co/o/r/resolve/{COMMIT}/f.gguf", None),
        ("https://example.com/files/f.gguf", None),
        ("https://example.com/resolve/main/f.gguf", None),
    ],
)
def test_a_branch_is_pinned_to_its_commit(url: str, pinned: str | None) -> None:
    assert pin_revision(url, COMMIT) == pinned


@pytest.mark.parametrize("revision", ["main", "", "a" * 39, "../../etc", "A" * 40])
def test_what_is_no_commit_pins_nothing(revision: str) -> None:
    assert pin_revision("https://huggingface.co/o/r/resolve/main/f.gguf", revision) is None
