"""Waiting on a condition, never on a guess of how long something takes."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
POLL_SECONDS = 0.02


def wait_until(predicate: Callable[[], T], timeout: float = 10.0, what: str = "the condition") -> T:
    """Call `predicate` until it returns something true, and return that.

    Fails the test with `what` after `timeout` seconds. An AssertionError of the predicate counts as "not yet", so
    that it may assert; its last words are in the failure's message.
    """
    never = threading.Event()
    deadline = time.monotonic() + timeout
    while True:
        last: object
        try:
            last = result = predicate()
            if result:
                return result
        except AssertionError as error:
            last = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout:g} s: {what} (last: {last!r})")
        never.wait(POLL_SECONDS)
