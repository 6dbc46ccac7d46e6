"""Times in words."""

import pytest

from launcher.words_of_time import ago, iso, short_span, span


@pytest.mark.parametrize(
    ("seconds", "words", "short"),
    [
        (-5, "0 seconds", "0 s"),
        (1, "1 second", "1 s"),
        (119, "119 seconds", "119 s"),
        (120, "2 minutes", "2 min"),
        (7199, "119 minutes", "119 min"),
        (7200, "2 hours", "2 h"),
        (172799, "47 hours", "47 h"),
        (86400 * 3.5, "3 days", "3 d"),
    ],
)
def test_a_span_has_one_unit(seconds: float, words: str, short: str) -> None:
    assert (span(seconds), short_span(seconds)) == (words, short)


def test_a_moment_that_is_to_come_by_this_clock_is_now() -> None:
    assert (ago(-3), ago(0.4), ago(180)) == ("just now", "just now", "3 minutes ago")


def test_a_moment_is_told_in_utc() -> None:
    assert iso(1_700_000_000.0) == "2023-11-14T22:13:20Z"
