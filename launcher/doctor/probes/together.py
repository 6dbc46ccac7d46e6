"""Several questions at once, for a check that asks more than one place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def together(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Make all calls, each in a thread of its own; return what they return in order, raise the first error."""
    found: dict[int, T] = {}
    errors: list[BaseException] = []

    def make(number: int) -> None:
        try:
            found[number] = calls[number]()
        except BaseException as error:  # noqa: BLE001  the outermost of its thread: raised again below
            errors.append(error)

    threads = [threading.Thread(target=make, args=[number], daemon=True) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        raise error
    return [found[number] for number in range(len(calls))]
