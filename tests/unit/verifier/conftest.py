"""A store that pins one file, and a verifier of it with a registry of its own."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.verifier import copies
from services.verifier.verification import Verifier
from tests.support.verifier_stand import RIGHT, make_verifier
from tests.support.verifier_store import Store, entry


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.make(tmp_path / "models", entry(RIGHT))


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def verifier(store: Store, registry: CollectorRegistry) -> Verifier:
    return make_verifier(store, registry)


@pytest.fixture(autouse=True)
def copies_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """On every file system alike; clones have their tests on file systems of their own."""
    monkeypatch.setattr(copies, "open_cloned_copy", lambda *_arguments, **_named: None)
