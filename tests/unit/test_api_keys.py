"""API keys: any of several, with the right scheme, and nothing else."""

from pathlib import Path

import pytest

from shared.api_keys import LOOK_SECONDS, KeyRing, is_authorised

KEYS = ("first", "second-ünïcode")


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        ("Bearer first", True),
        ("bearer first", True),
        ("Bearer  first ", True),
        ("Bearer second-ünïcode", True),
        ("Bearer third", False),
        ("Bearer", False),
        ("Bearer ", False),
        ("Basic first", False),
        ("first", False),
        ("", False),
        (None, False),
        ("Bearer firstfirst", False),
        ("Bearer first,second-ünïcode", False),
    ],
)
def test_only_a_known_key_opens(header: str | None, allowed: bool) -> None:
    assert is_authorised(header, KEYS) is allowed


def test_without_keys_the_api_is_open() -> None:
    assert is_authorised(None, ())


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_keys_of_a_file_change_without_a_restart(tmp_path: Path) -> None:
    file, clock = tmp_path / "keys", Clock()
    ring = KeyRing(("old",), file, clock)
    file.write_text("new, newer\n")
    assert ring.authorises("Bearer old"), "it is not read at every request"
    clock.now += LOOK_SECONDS
    assert [ring.authorises(f"Bearer {key}") for key in ("old", "new", "newer")] == [False, True, True]


@pytest.mark.parametrize("content", [None, b"", b" \n,\n", b"\xff\xfe", "schlüssel\n".encode()])
def test_a_file_that_says_nothing_leaves_the_last_keys(tmp_path: Path, content: bytes | None) -> None:
    file, clock = tmp_path / "keys", Clock()
    ring = KeyRing(("old",), file, clock)
    if content is not None:
        file.write_bytes(content)
    clock.now += LOOK_SECONDS
    assert ring.authorises("Bearer old")
    assert not ring.authorises(None), "the API never opens"


def test_without_a_file_the_keys_are_those_of_the_start() -> None:
    assert KeyRing(("only",)).authorises("Bearer only")
    assert KeyRing(()).authorises(None)
