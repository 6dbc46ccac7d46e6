"""One stage for all misbehaviours: its processes start once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.fault_stand import Stage
from tests.support.redis_server import RedisServer


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    home = tmp_path_factory.mktemp("faults")
    with (
        RedisServer(tmp_path_factory.mktemp("faults-redis"), node="local") as redis,
        Stage(home, redis).open() as stage,
    ):
        yield stage
