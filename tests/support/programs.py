"""Programs of the system that a test needs beside Python: without them it skips, but fails in CI."""

from __future__ import annotations

import os
import shutil

import pytest


def need(*programs: str) -> None:
    """Skip the test where one of `programs` is not installed; fail it where CI is `true`, which installs them."""
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    message = f"needs {', '.join(missing)}: apt-get install them"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
