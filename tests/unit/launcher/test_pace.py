"""Rate and time left of what moves, stalls, and begins anew; and how a person is told."""

from __future__ import annotations

import pytest

from launcher.display import PlainDisplay, QuietDisplay, choose_display, describe_progress
from launcher.pace import WINDOW_SECONDS, Pace, describe_span

MB = 1_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run(pace: Pace, clock: Clock, done: int, seconds: float, bytes_per_second: int) -> int:
    """Move for so long; return how far it is then."""
    for _ in range(round(seconds * 10)):
        clock.now += 0.1
        done += bytes_per_second // 10
        pace.tell(done)
    return done


def test_the_rate_is_that_of_the_last_seconds_and_not_of_what_was_there_before(clock: Clock) -> None:
    pace = Pace(clock)
    pace.tell(500 * MB)
    assert pace.rate() is None
    assert pace.left(600 * MB) is None
    done = run(pace, clock, 500 * MB, 5, 2 * MB)
    assert pace.rate() == pytest.approx(2 * MB)
    assert pace.left(done + 20 * MB) == pytest.approx(10)
    done = run(pace, clock, done, 20, 8 * MB)
    assert pace.rate() == pytest.approx(8 * MB)


def test_a_stall_is_seen_and_has_no_time_left(clock: Clock) -> None:
    pace = Pace(clock)
    done = run(pace, clock, 0, 5, MB)
    clock.now += WINDOW_SECONDS / 2
    rate = pace.rate()
    assert rate is not None
    assert 0 < rate < MB
    clock.now += 2 * WINDOW_SECONDS
    assert pace.rate() == 0
    assert pace.left(done + MB) is None


def test_what_goes_back_begins_anew(clock: Clock) -> None:
    pace = Pace(clock)
    run(pace, clock, 0, 5, MB)
    pace.tell(0)
    assert pace.rate() is None
    run(pace, clock, 0, 3, 3 * MB)
    assert pace.rate() == pytest.approx(3 * MB)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s"), (4800, "1 h 20 min")]
)
def test_a_span_is_said_as_a_person_says_it(seconds: float, said: str) -> None:
    assert describe_span(seconds) == said


def test_a_line_has_rate_and_time_left_until_the_end(clock: Clock) -> None:
    pace = Pace(clock)
    run(pace, clock, 0, 4, MB)
    assert describe_progress("verify", 4 * MB, 10 * MB, pace) == "verify: 4.0 MB of 10.0 MB (40 %), 1.0 MB/s, 6 s left"
    assert describe_progress("verify", 4 * MB, None, pace) == "verify: 4.0 MB, 1.0 MB/s"
    assert describe_progress("verify", 10 * MB, 10 * MB, pace) == "verify: 10.0 MB of 10.0 MB (100 %)"


def test_who_wants_quiet_hears_of_errors_alone(capsys: pytest.CaptureFixture[str]) -> None:
    display = choose_display(quiet=True)
    assert isinstance(display, QuietDisplay)
    assert isinstance(choose_display(), PlainDisplay)
    display.say("a hint")
    display.progress("download", 1, 2)
    display.error("error: it is \x1b[31mwrong")
    display.pause()
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "error: it is \\x1b[31mwrong\n")
