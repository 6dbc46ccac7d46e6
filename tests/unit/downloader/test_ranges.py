from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.downloader.transfer.ranges import Ranges, add_range, covered, first_gap, prefix


@pytest.mark.parametrize(
    ("ranges", "start", "end", "expected"),
    [
        ((), 0, 5, ((0, 5),)),
        (((0, 5),), 5, 9, ((0, 9),)),
        (((0, 5),), 3, 4, ((0, 5),)),
        (((0, 5),), 7, 9, ((0, 5), (7, 9))),
        (((0, 5), (7, 9)), 5, 7, ((0, 9),)),
        (((0, 5), (7, 9), (20, 30)), 4, 8, ((0, 9), (20, 30))),
        (((7, 9),), 0, 2, ((0, 2), (7, 9))),
        (((0, 5),), 5, 5, ((0, 5),)),
    ],
)
def test_a_range_is_merged_with_what_it_touches(ranges: Ranges, start: int, end: int, expected: Ranges) -> None:
    assert add_range(ranges, start, end) == expected


@pytest.mark.parametrize(
    ("ranges", "size", "expected"),
    [
        ((), 100, (0, 100)),
        (((0, 40),), 100, (40, 100)),
        (((0, 10), (30, 40)), 100, (10, 30)),
        (((30, 40),), 100, (0, 30)),
        (((0, 100),), 100, None),
    ],
)
def test_the_first_gap_ends_where_the_next_range_begins(
    ranges: Ranges, size: int, expected: tuple[int, int] | None
) -> None:
    assert first_gap(ranges, size) == expected


_PAIRS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=20)


@given(_PAIRS)
def test_a_set_of_ranges_is_sorted_apart_and_holds_exactly_what_was_added(pairs: list[tuple[int, int]]) -> None:
    ranges: Ranges = ()
    wanted: set[int] = set()
    for start, end in pairs:
        ranges = add_range(ranges, start, end)
        wanted |= set(range(start, end))
    assert {byte for start, end in ranges for byte in range(start, end)} == wanted
    assert all(first[1] < second[0] for first, second in pairwise(ranges))
    assert covered(ranges) == len(wanted)
    assert prefix(ranges) == next(byte for byte in range(100) if byte not in wanted)
