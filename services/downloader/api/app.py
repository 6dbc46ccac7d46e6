"""The HTTP API: what stands on the board, an operator's word to the controller, health and metrics."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from services.downloader.api.auth import PostGuard
from services.downloader.api.errors import install_error_answers, unknown_model
from services.downloader.api.events import status_events
from services.downloader.api.page import status_page
from services.downloader.board import Board
from services.downloader.control_rules import Verb
from services.downloader.controller import Controller
from services.downloader.courier import Courier
from shared.api_keys import KeyRing
from shared.states import ModelStatus
from shared.version import __version__

_SSE_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@dataclass(frozen=True, slots=True)
class Service:
    """What the API shows and asks."""

    node: str
    root: Path
    board: Board
    courier: Courier
    controller: Controller
    registry: CollectorRegistry
    stop: threading.Event


def build_api(service: Service, api_keys: KeyRing) -> FastAPI:
    """Return the application. Handlers are plain functions (threads), since they read files and take locks."""
    app = FastAPI(title="R3MES downloader", docs_url=None, redoc_url=None, openapi_url=None)
    install_error_answers(app)
    _add_health(app, service)
    _add_views(app, service)
    _add_events(app, service)
    _add_verbs(app, service.controller.obey, PostGuard(api_keys))
    return app


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    def readyz() -> JSONResponse:
        ready = service.controller.has_turned
        reason = "" if ready else "the reconciler has not made its first turn"
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return JSONResponse({"ready": ready, "reason": reason}, status_code=status)

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(service.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _add_views(app: FastAPI, service: Service) -> None:
    @app.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(
            status_page(
                node=service.node,
                genesis=service.controller.watch.current.genesis.sha256,
                statuses=service.board.statuses(),
                is_redis_up=service.courier.is_up,
                free_bytes=shutil.disk_usage(service.root).free,
            )
        )

    @app.get("/api/v1/status")
    def status() -> dict[str, Any]:
        trust = service.controller.watch.current
        disk = shutil.disk_usage(service.root)
        return {
            "node": service.node,
            "version": __version__,
            "genesis_sha256": trust.genesis.sha256,
            "staged_genesis_sha256": trust.staged.sha256 if trust.staged else None,
            "models": [model.to_json() for model in service.board.statuses()],
            "disk": {"free_bytes": disk.free, "total_bytes": disk.total},
            "queue": service.courier.queue_counts,
            "redis_up": service.courier.is_up,
        }

    @app.get("/api/v1/models")
    def models() -> dict[str, Any]:
        return {"models": [model.to_json() for model in service.board.statuses()]}

    @app.get("/api/v1/models/{digest}")
    def model(digest: str) -> dict[str, Any]:
        return _known(service.board, digest).to_json()


def _add_events(app: FastAPI, service: Service) -> None:
    def stream(digest: str | None) -> StreamingResponse:
        events = status_events(service.board, digest, service.stop)
        return StreamingResponse(events, media_type="text/event-stream", headers=_SSE_HEADERS)

    @app.get("/api/v1/events")
    async def all_events() -> StreamingResponse:
        return stream(None)

    @app.get("/api/v1/models/{digest}/events")
    async def model_events(digest: str) -> StreamingResponse:
        return stream(_known(service.board, digest).sha256)


def _add_verbs(app: FastAPI, obey: Callable[[str, Verb], ModelStatus | None], guard: PostGuard) -> None:
    def add(verb: Verb) -> None:
        path = f"/api/v1/models/{{digest}}/{verb}"

        @app.post(path, status_code=HTTPStatus.ACCEPTED, name=verb, dependencies=[Depends(guard)])
        def word(digest: str) -> dict[str, Any]:
            status = obey(digest.lower(), verb)
            if status is None:
                raise unknown_model(digest)
            return status.to_json()

    for verb in Verb:
        add(verb)


def _known(board: Board, digest: str) -> ModelStatus:
    status = board.status(digest.lower())
    if status is None:
        raise unknown_model(digest)
    return status
