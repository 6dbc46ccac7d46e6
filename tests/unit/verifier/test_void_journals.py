"""A journal that says nothing of the data beside it is counted; none, or an unfinished one, is the way of things."""

import pytest
from prometheus_client import CollectorRegistry

from services.verifier.verification import Outcome, Verifier
from tests.support.verifier_stand import DIGEST, RIGHT, value
from tests.support.verifier_store import Store, sha256_of


@pytest.mark.parametrize(
    ("change", "counted"),
    [
        pytest.param({"complete": False}, 0, id="unfinished"),
        pytest.param({"ino": 1}, 1, id="of another inode"),
        pytest.param({"sha256": sha256_of(b"other")}, 1, id="of another digest"),
    ],
)
def test_a_journal_of_something_else_is_counted(
    store: Store, verifier: Verifier, registry: CollectorRegistry, change: dict[str, object], counted: int
) -> None:
    store.put(DIGEST, RIGHT)
    store.write_journal(DIGEST, size=len(RIGHT), **change)
    assert verifier.verify(DIGEST) is Outcome.NOTHING
    assert value(registry, "r3mes_verifications_total", result="error") == counted
    assert store.layout.data(DIGEST).exists()


def test_data_without_a_journal_is_a_download_that_begins(
    store: Store, verifier: Verifier, registry: CollectorRegistry
) -> None:
    store.put(DIGEST, RIGHT)
    store.layout.journal(DIGEST).unlink()
    assert verifier.verify(DIGEST) is Outcome.NOTHING
    assert value(registry, "r3mes_verifications_total", result="error") == 0
