"""`r3mes status`: every pinned model, from the downloader where a stack runs, else from the store itself.

The store is the truth, so that the second way says the same about what is verified; what it cannot know is a rate, a
reason in words, and whether someone is at work.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import requests
from pydantic import TypeAdapter, ValidationError
from rich.filesize import decimal

from launcher.endpoints import ClientSettings, base_url, error_message, session
from launcher.streams import write_data
from shared.errors import NotReadyError, UsageError
from shared.genesis import ModelPin
from shared.states import ModelState, ModelStatus
from shared.store.layout import StoreLayout
from shared.store.records import Control, Journal
from shared.store.trust import read_trust
from shared.store.verified import has_right_receipt

ANSWER_SECONDS = 5.0
_STATUSES = TypeAdapter(tuple[ModelStatus, ...])


@dataclass(frozen=True, slots=True)
class Report:
    """`origin` is the URL that was asked, or the store's path; `document` is what `--json` prints."""

    origin: str
    models: tuple[ModelStatus, ...]
    document: dict[str, Any]


def report(settings: ClientSettings) -> Report:
    """Ask the downloader; with none there and no `R3MES_URL`, read the store.

    Raises NotReadyError when `R3MES_URL` does not answer, UsageError when it refuses, StoreError without a store.
    """
    try:
        return from_stack(f"{base_url(settings, 'downloader')}/api/v1/status", settings.api_key)
    except (NotReadyError, UsageError):
        if settings.url:
            raise
        return from_store(StoreLayout(settings.store_root))  # nobody is there, or somebody else has the usual port


def from_stack(url: str, api_key: str | None) -> Report:
    """Ask a downloader; raises NotReadyError when it does not answer, UsageError when it is none."""
    try:
        with session(api_key) as client:
            answer = client.get(url, timeout=ANSWER_SECONDS)
    except requests.RequestException as error:
        raise NotReadyError(f"{url} does not answer", next_step="check R3MES_URL, or start the stack") from error
    if answer.status_code != HTTPStatus.OK:
        raise UsageError(f"{url}: {error_message(answer)}")
    try:
        document = answer.json()
        return Report(url, _STATUSES.validate_python(document["models"]), document)
    except (ValueError, LookupError, TypeError, ValidationError) as error:
        raise UsageError(f"{url} is not a downloader of R3MES", next_step="check R3MES_URL") from error


def from_store(layout: StoreLayout) -> Report:
    """Read trust, receipts, journals and control documents; raises StoreError when nothing is accepted there."""
    genesis = read_trust(layout).genesis
    models = tuple(stored_status(layout, pin) for pin in genesis.models)
    document = {
        "store": str(layout.root),
        "genesis_sha256": genesis.sha256,
        "models": [model.to_json() for model in models],
    }
    return Report(str(layout.root), models, document)


def stored_status(layout: StoreLayout, pin: ModelPin) -> ModelStatus:
    """Return what the store alone says of one model; hashes nothing."""
    if receipt := has_right_receipt(layout, pin.sha256, pin.file_name):
        return ModelStatus(
            pin.sha256,
            pin.model_name,
            pin.file_name,
            ModelState.VERIFIED,
            source=receipt.source,
            received_bytes=receipt.size,
            expected_bytes=receipt.size,
            hashed_bytes=receipt.size,
            verified_at=receipt.verified_at,
        )
    control = Control.read(layout.control(pin.sha256)) or Control()
    journal = Journal.read(layout.journal(pin.sha256))
    return ModelStatus(
        pin.sha256,
        pin.model_name,
        pin.file_name,
        _stored_state(control, journal),
        reason=control.reason,
        message=control.message,
        source=journal.source if journal else None,
        received_bytes=sum(end - start for start, end in journal.ranges) if journal else 0,
        expected_bytes=journal.size if journal else pin.size_bytes,
        next_attempt_at=control.next_attempt_at,
        updated_at=journal.updated_at if journal else 0.0,
    )


def _stored_state(control: Control, journal: Journal | None) -> ModelState:
    if journal is not None and journal.complete:
        return ModelState.VERIFYING
    if control.wish == "paused":
        return ModelState.PAUSED
    if control.wish == "cancelled" or control.reason is not None:
        return ModelState.FAILED
    return ModelState.ABSENT if journal is None else ModelState.DOWNLOADING


def show(found: Report, *, as_json: bool) -> None:
    """Print the report to stdout, and where it is from to stderr."""
    if as_json:
        write_data(json.dumps(found.document, indent=2) + "\n")
        return
    sys.stderr.write(f"from {found.origin}\n")
    write_data("".join(describe(model) + "\n" for model in found.models))


def describe(model: ModelStatus) -> str:
    """Say in one line, or two, how a model is."""
    state = f"{model.state} ({model.reason})" if model.reason else str(model.state)
    size = [decimal(model.expected_bytes)] if model.expected_bytes else []
    if size and model.received_bytes and model.state is not ModelState.VERIFIED:
        size = [f"{decimal(model.received_bytes)} of {size[0]}"]
    line = ", ".join([state, *size, f"sha256 {model.sha256}"])
    return f"{model.model_name}: {line}" + (f"\n  {model.message}" if model.message else "")
