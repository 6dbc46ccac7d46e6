"""A verifier in this process, the file that its store pins, and that file with a bit flipped."""

import os
import threading

from prometheus_client import CollectorRegistry

from services.verifier.metrics import VerifierMetrics
from services.verifier.progress import SilentObserver
from services.verifier.verification import Verifier
from shared.store.trust import TrustWatch
from tests.support.verifier_store import Store, sha256_of

RIGHT = os.urandom(3_000_001)
DIGEST = sha256_of(RIGHT)


def make_verifier(store: Store, registry: CollectorRegistry | None = None) -> Verifier:
    metrics = VerifierMetrics(registry or CollectorRegistry())
    return Verifier(store.layout, TrustWatch(store.layout), metrics, threading.Event(), SilentObserver())


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    found = registry.get_sample_value(name, labels)
    assert found is not None
    return found


def flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
