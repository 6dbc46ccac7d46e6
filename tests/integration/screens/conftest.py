"""A scripted stack on loopback."""

from collections.abc import Iterator

import pytest

from tests.support.scripted_stack import ScriptedStack


@pytest.fixture
def stack() -> Iterator[ScriptedStack]:
    with ScriptedStack() as running:
        yield running
