"""API keys: any of several, with the right scheme, and nothing else."""

import pytest

from shared.api_keys import is_authorised

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
