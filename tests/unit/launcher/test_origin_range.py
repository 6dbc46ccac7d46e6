"""What the origin makes of a Range header, and of one bit."""

import pytest

from launcher.origin import UnsatisfiableRangeError, flip_bit, parse_range


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-", (0, 100)),
        ("bytes=0-0", (0, 1)),
        ("bytes=10-19", (10, 20)),
        ("bytes=90-1000", (90, 100)),
        ("bytes=99-", (99, 100)),
        ("bytes=-5", (95, 100)),
        ("bytes=-500", (0, 100)),
        ("bytes=-", None),
        ("bytes=5-2", None),
        ("bytes=0-1,5-6", None),
        ("items=0-1", None),
        ("bytes=x-1", None),
    ],
)
def test_a_range_header_becomes_a_half_open_range_or_is_ignored(
    header: str | None, expected: tuple[int, int] | None
) -> None:
    assert parse_range(header, 100) == expected


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_behind_the_end_is_unsatisfiable(header: str) -> None:
    with pytest.raises(UnsatisfiableRangeError):
        parse_range(header, 100)


@pytest.mark.parametrize(("start", "expected"), [(0, b"abb"), (1, b"`bc"), (2, b"abc"), (5, b"abc")])
def test_exactly_the_bit_at_the_offset_is_flipped(start: int, expected: bytes) -> None:
    offset = {0: 2, 1: 1, 2: 1, 5: 1}[start]
    assert flip_bit(b"abc", start, offset) == expected
