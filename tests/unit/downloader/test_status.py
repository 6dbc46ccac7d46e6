"""The status document: what people see of a pin, from the action and what is known beside it."""

from __future__ import annotations

import pytest

from services.downloader.reconcile import Action, Fetch, Rest
from services.downloader.status import Seen, compose
from services.downloader.transfer.progress import Snapshot
from shared.genesis import parse_genesis
from shared.states import FailureReason, ModelState, Source
from tests.support.geneses import plain_form

PIN = parse_genesis(plain_form(size_bytes=1000), file="genesis.json").models[0]
PAUSED = Rest(ModelState.PAUSED, None, None)
CANCELLED = Rest(ModelState.FAILED, FailureReason.CANCELLED, None)


@pytest.mark.parametrize("action", [Fetch(Source.HUGGINGFACE), PAUSED, CANCELLED])
def test_bytes_that_came_do_not_go_back_while_a_transfer_stops(action: Action) -> None:
    running = Snapshot(Source.HUGGINGFACE, 500, 1000, None)
    assert compose(PIN, action, Seen(running=running), 0.0).received_bytes == 500


def test_without_a_transfer_only_what_is_durable_counts() -> None:
    assert compose(PIN, PAUSED, Seen(), 0.0).received_bytes == 0
