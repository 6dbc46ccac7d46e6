"""An origin without any script, and a bench on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.origin_server import ScriptedOrigin
from tests.support.transfer_bench import Bench


@pytest.fixture
def origin() -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin() as origin:
        yield origin


@pytest.fixture
def bench(tmp_path: Path, origin: ScriptedOrigin) -> Bench:
    return Bench(tmp_path, origin)
