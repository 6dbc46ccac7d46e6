"""The memory of the API process, which outlives engines and loads a vocabulary with each of them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.soak_figures import MIB

pytestmark = pytest.mark.slow


def test_vocabularies_that_come_and_go_leave_nothing_in_the_process() -> None:
    child = subprocess.run(
        [sys.executable, "-m", "tests.support.vocabulary_loads"], capture_output=True, check=True, timeout=60
    )
    assert int(child.stdout.splitlines()[-1]) < 10 * MIB  # one more vocabulary in another thread's memory is 16
