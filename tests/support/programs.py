"""System programs that a test needs: it skips without them, but not where everything has to be run."""

import os
import shutil

import pytest


def need(*programs: str) -> None:
    """Skip the test when a program is missing; fail instead where CI is `true`."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"not installed: {', '.join(missing)}")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
