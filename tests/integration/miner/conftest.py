"""A store for each test, and one ready miner that the tests of the API share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.miner.stand import Miner, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture(scope="module")
def miner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Miner]:
    """A ready miner; never stop this one."""
    store = Store(tmp_path_factory.mktemp("miner"))
    store.put_model()
    with Miner(store) as running:
        running.wait_ready()
        yield running
