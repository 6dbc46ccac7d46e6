"""One whole stack for the tests of this folder that ask it; each leaves it running and able to answer."""

from collections.abc import Iterator

import pytest

from shared.genesis import ModelPin
from tests.support.compose import Stack
from tests.support.containers import default_pin
from tests.support.whole_stack import whole_stack


@pytest.fixture(scope="session")
def pin() -> ModelPin:
    """The one model of the default genesis."""
    return default_pin()


@pytest.fixture(scope="session")
def stack(pin: ModelPin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The one whole stack of this run."""
    with whole_stack(tmp_path_factory.mktemp("stack"), pin) as stack:
        yield stack
