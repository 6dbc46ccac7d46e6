"""What `r3mes status` finds: every pinned model, from the downloader where a stack runs, else from the store; miners.

The store is the truth, so that the second way says the same about what is verified; what it cannot know is a rate, a
reason in words, and whether someone is at work.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

import requests
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from launcher.endpoints import ClientSettings, base_url, error_message, no_answer, session
from launcher.miner_status import MinerReport, ask_miner
from shared.errors import NotReadyError, UsageError
from shared.genesis import ModelPin
from shared.states import ModelState, ModelStatus
from shared.store.layout import StoreLayout
from shared.store.records import Control, Journal
from shared.store.trust import read_trust
from shared.store.verified import has_right_receipt

ANSWER_SECONDS = 5.0
_STATUSES = TypeAdapter(tuple[ModelStatus, ...])


class Disk(BaseModel):
    """The file system of the store."""

    free_bytes: int
    total_bytes: int


class Host(BaseModel):
    """What a status tells beside models and miners; None where a store alone cannot know it, or Redis is away."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    node: str | None = None
    genesis_sha256: str
    staged_genesis_sha256: str | None = None
    queue: dict[str, int] | None = None
    redis_up: bool | None = None
    disk: Disk | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """`origin` is the URL that was asked, or the store's path (`is_store`); `document` is what `--json` prints."""

    origin: str
    models: tuple[ModelStatus, ...]
    host: Host
    document: dict[str, Any]
    is_store: bool = False
    miners: tuple[MinerReport, ...] = ()


def report(settings: ClientSettings) -> Report:
    """Ask the downloader; with none there and no `R3MES_URL`, read the store. Ask the miner, if the downloader cannot.

    Raises NotReadyError when `R3MES_URL` does not answer, UsageError when it refuses, ConfigurationError for a
    certificate that is not accepted, StoreError without a store.
    """
    found = _models(settings)
    miners = found.document.get("miners") or []
    document = {**found.document, "miners": miners}
    if not miners and (miner := ask_miner(settings)) is not None:
        document |= {"miners": [miner], "miner": miner}  # `miner`: for scripts of before there were several
    return replace(found, document=document, miners=_parsed(document["miners"]))


def _parsed(miners: object) -> tuple[MinerReport, ...]:
    """Return the miners of a document; a downloader of another version may tell of them otherwise."""
    parsed = []
    for each in miners if isinstance(miners, list) else []:
        try:
            parsed.append(MinerReport.model_validate(each))
        except ValidationError:
            continue
    return tuple(parsed)


def _models(settings: ClientSettings) -> Report:
    try:
        return from_stack(f"{base_url(settings, 'downloader')}/api/v1/status", settings.api_key)
    except (NotReadyError, UsageError):
        if settings.url:
            raise
        return from_store(StoreLayout(settings.store_root))  # nobody is there, or somebody else has the usual port


def from_stack(url: str, api_key: str | None) -> Report:
    """Ask a downloader; raises what `no_answer` returns when it does not answer, UsageError when it is none."""
    try:
        with session(api_key) as client:
            answer = client.get(url, timeout=ANSWER_SECONDS)
    except requests.RequestException as error:
        raise no_answer(
            url.removesuffix("/api/v1/status"), error, next_step="check R3MES_URL, or start the stack"
        ) from error
    if answer.status_code != HTTPStatus.OK:
        raise UsageError(f"{url}: {error_message(answer)}")
    try:
        document = answer.json()
        return Report(url, _STATUSES.validate_python(document["models"]), Host.model_validate(document), document)
    except (ValueError, LookupError, TypeError, ValidationError) as error:
        raise UsageError(f"{url} is not a downloader of R3MES", next_step="check R3MES_URL") from error


def from_store(layout: StoreLayout) -> Report:
    """Read trust, receipts, journals and control documents; raises StoreError when nothing is accepted there."""
    trust = read_trust(layout)
    models = tuple(stored_status(layout, pin) for pin in trust.genesis.models)
    disk = shutil.disk_usage(layout.root)
    document = {
        "store": str(layout.root),
        "genesis_sha256": trust.genesis.sha256,
        "staged_genesis_sha256": trust.staged.sha256 if trust.staged else None,
        "models": [model.to_json() for model in models],
        "disk": {"free_bytes": disk.free, "total_bytes": disk.total},
    }
    return Report(str(layout.root), models, Host.model_validate(document), document, is_store=True)


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
