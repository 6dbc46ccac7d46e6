"""When a service of the demo that ended is started again, and when the demo gives up. Pure.

A configuration error (78) cannot heal: the demo ends with it. Everything else is started again with a back-off that
doubles, from at once after a kill; a service that lived for a while starts from the first step again. Several exits in
a row of its own making mean that it cannot start.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import ExitCode

FIRST_DELAY_SECONDS = 0.25
LONGEST_DELAY_SECONDS = 5.0
SETTLED_SECONDS = 10.0  # who lived this long did start
MOST_EXITS_IN_A_ROW = 4
MOST_KILLS_IN_A_ROW = 20  # kills come from outside, and an operator's test kills a lot


@dataclass(frozen=True, slots=True)
class Restart:
    """Start it again after `delay_seconds`; `in_a_row` counts the quick ends so far."""

    delay_seconds: float
    in_a_row: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the demo with `exit_code`."""

    exit_code: int


def after_exit(returncode: int, *, lived_seconds: float, in_a_row: int) -> Restart | GiveUp:
    """Decide what follows the end of a service.

    `returncode` is subprocess's (negative: the signal), `in_a_row` the quick ends before this one.
    """
    if returncode == ExitCode.CONFIGURATION:
        return GiveUp(returncode)
    count = 1 if lived_seconds >= SETTLED_SECONDS else in_a_row + 1
    most = MOST_KILLS_IN_A_ROW if returncode < 0 else MOST_EXITS_IN_A_ROW
    if count > most:
        return GiveUp(returncode if returncode > 0 else ExitCode.FAILURE)
    return Restart(min(FIRST_DELAY_SECONDS * 2 ** (count - 1), LONGEST_DELAY_SECONDS), count)


def describe_exit(returncode: int) -> str:
    """Say how a process ended."""
    return f"was killed by signal {-returncode}" if returncode < 0 else f"ended with exit code {returncode}"
