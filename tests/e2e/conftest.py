"""One whole stack for the tests of this folder that ask it; each leaves it running and able to answer."""

import time
from collections.abc import Iterator

import pytest

from shared.genesis import ModelPin
from tests.support.compose import Stack
from tests.support.containers import default_pin, need_engine, stack_with_origin
from tests.support.whole_stack import READY_SECONDS, ask


@pytest.fixture(scope="session")
def pin() -> ModelPin:
    """The one model of the default genesis."""
    return default_pin()


@pytest.fixture(scope="session")
def stack(pin: ModelPin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack of docker-compose.yml as it is, with an origin beside it; removed with its volumes at the end."""
    need_engine()
    stack = stack_with_origin(tmp_path_factory.mktemp("stack"), pin)
    try:
        stack.build()
        begun = time.monotonic()
        stack.run("up", "--detach")
        ask(stack, pin.model_name, within=READY_SECONDS)
        stack.first_answer_seconds = time.monotonic() - begun
        stack.up()
        yield stack
    finally:
        print(stack.run("logs", "--no-color", "--tail", "60", check=False))  # noqa: T201  pytest shows it on failure
        stack.down("--volumes", "--rmi", "local", "--timeout", "10")
