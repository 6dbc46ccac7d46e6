"""stdin, stdout and stderr as a command finds them: closed, full, at their end, or unable to write a letter."""

from __future__ import annotations

import io
import os
import sys

from shared.errors import R3mesError


class OutputError(R3mesError):
    """What was asked for cannot be written to stdout."""


def mend_streams() -> None:
    """Let a closed stream be one that swallows all and says nothing; a letter that one cannot write is lost alone."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115  it lives as long as the process
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  it lives as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def write_data(text: str) -> None:
    """Write to stdout at once.

    Raises BrokenPipeError when nobody reads it any more, OutputError when it cannot be written otherwise.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  what is left in its buffer would fail again
        raise OutputError(
            f"cannot write to stdout: {error.strerror}", next_step="look at where it leads, and the room there"
        ) from error
