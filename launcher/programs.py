"""Other programs, asked for a line or two within a few seconds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Said:
    """What a program said; `returncode` is negative for a signal, None where it did not end in time."""

    returncode: int | None
    stdout: str = ""
    stderr: str = ""

    @property
    def works(self) -> bool:
        """Whether it ended well."""
        return self.returncode == 0

    @property
    def trouble(self) -> str:
        """Why it did not, in a few words."""
        if self.returncode is None:
            return self.stderr or "no answer in time"
        lines = [line.strip() for line in (self.stderr or self.stdout).splitlines() if line.strip()]
        return lines[-1][:200] if lines else f"exit code {self.returncode}"

    @property
    def died(self) -> str:
        """The name of the signal that ended it, empty when none did."""
        return signal.Signals(-self.returncode).name if self.returncode is not None and self.returncode < 0 else ""


def ask_program(
    argv: Sequence[str], *, seconds: float, environ: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Said:
    """Run a program to its end; what cannot be started or does not end says so in `trouble`."""
    try:
        done = subprocess.run(  # noqa: S603  fixed command lines of this package
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            cwd=cwd,
            env={**(os.environ if environ is None else environ), "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return Said(None, stderr=f"no answer within {seconds:g} s")
    except OSError as error:
        return Said(None, stderr=error.strerror or str(error))
    return Said(done.returncode, done.stdout, done.stderr)


def is_there(name: str) -> bool:
    """Tell whether a program is on the PATH."""
    return shutil.which(name) is not None
