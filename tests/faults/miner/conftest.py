"""A store for each test."""

from pathlib import Path

import pytest

from tests.integration.miner.stand import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)
