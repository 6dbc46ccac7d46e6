"""What follows the end of a service of the demo."""

import signal

import pytest

from launcher.demo.restarts import GiveUp, Restart, after_exit, describe_exit


@pytest.mark.parametrize(
    ("returncode", "lived", "in_a_row", "expected"),
    [
        (78, 0.5, 0, GiveUp(78)),
        (78, 1000.0, 0, GiveUp(78)),
        (-signal.SIGKILL, 100.0, 3, Restart(0.25, 1)),
        (-signal.SIGKILL, 1.0, 0, Restart(0.25, 1)),
        (-signal.SIGKILL, 1.0, 4, Restart(4.0, 5)),
        (-signal.SIGKILL, 1.0, 10, Restart(5.0, 11)),
        (-signal.SIGKILL, 1.0, 20, GiveUp(1)),
        (1, 0.5, 0, Restart(0.25, 1)),
        (1, 0.5, 3, Restart(2.0, 4)),
        (1, 0.5, 4, GiveUp(1)),
        (4, 0.5, 4, GiveUp(4)),
        (0, 0.5, 0, Restart(0.25, 1)),
        (0, 0.5, 4, GiveUp(1)),
    ],
)
def test_a_service_is_started_again_unless_that_cannot_help(
    returncode: int, lived: float, in_a_row: int, expected: Restart | GiveUp
) -> None:
    assert after_exit(returncode, lived_seconds=lived, in_a_row=in_a_row) == expected


@pytest.mark.parametrize(
    ("returncode", "words"), [(-9, "was killed by signal 9"), (78, "ended with exit code 78"), (0, "exit code 0")]
)
def test_an_exit_is_described(returncode: int, words: str) -> None:
    assert words in describe_exit(returncode)
