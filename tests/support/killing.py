"""A child that is killed at its first step, then at its second, and so on, until it comes to its end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import count

# What Python tells an audit hook just before it changes or opens something.
STEPS = {"open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.chmod", "os.chown", "fcntl.flock"}


def killed_at_each_step(action: Callable[[], object], prepare: Callable[[], None]) -> Iterator[int]:
    """Run `action` in a child that dies at its first step, then at its second, and so on; yields after each death."""
    for step in count(1):
        prepare()
        child = os.fork()
        if child == 0:
            _run_until_killed(action, step)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "the action failed by itself"
            assert step > 5, "too few steps were seen for this test to mean anything"
            return
        yield step


def _run_until_killed(action: Callable[[], object], step: int) -> None:
    steps = count(1)

    def kill(event: str, _arguments: object) -> None:
        if event in STEPS and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(kill)
        action()
        os._exit(0)
    finally:
        os._exit(1)
