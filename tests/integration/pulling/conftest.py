"""An origin that redirects to the small file as Hugging Face does, and a home for what fetches it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.downloader_stand import DATA, PATH
from tests.support.origin_server import ScriptedOrigin, linked, ranged, redirect


@pytest.fixture
def origin() -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin(send_buffer=128 * 1024) as origin:
        origin.scripts[PATH] = redirect("/cdn", linked(DATA))
        origin.scripts["/cdn"] = ranged(DATA)
        yield origin


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"
