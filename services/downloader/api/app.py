"""The HTTP API: what stands on the board, an operator's word to the controller, health and metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import Depends, FastAPI, Response
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from services.downloader.api.auth import PostGuard
from services.downloader.api.errors import install_error_answers, unknown_model
from services.downloader.api.events import status_events
from services.downloader.api.page import add_page
from services.downloader.board import Board
from services.downloader.bulletin import Bulletin
from services.downloader.control_rules import Verb
from services.downloader.controller import Controller
from services.downloader.page.render import Shown
from shared.api_keys import KeyRing
from shared.states import ModelStatus

_SSE_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@dataclass(frozen=True, slots=True)
class Service:
    """What the API shows and asks.

    `facts` returns what there is to say of the node now; `news` are the bulletins `node` (the same, now and then) and
    `miners`. `miner_urls`: where those are looked for.
    """

    board: Board
    facts: Callable[[], dict[str, Any]]
    news: Sequence[Bulletin]
    miners: Bulletin
    miner_urls: tuple[str, ...]
    controller: Controller
    registry: CollectorRegistry
    stop: threading.Event


def build_api(service: Service, api_keys: KeyRing) -> FastAPI:
    """Return the application. Handlers are plain functions (threads), since they read files and take locks."""
    app = FastAPI(title="R3MES downloader", docs_url=None, redoc_url=None, openapi_url=None)
    install_error_answers(app)
    _add_health(app, service)
    _add_views(app, service)
    add_page(app, lambda: _shown(service, api_keys))
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
    @app.get("/api/v1/status")
    def status() -> dict[str, Any]:
        models = [model.to_json() for model in service.board.statuses()]
        return {**service.facts(), "models": models, "miners": service.miners.latest()[1] or []}

    @app.get("/api/v1/models")
    def models() -> dict[str, Any]:
        return {"models": [model.to_json() for model in service.board.statuses()]}

    @app.get("/api/v1/models/{digest}")
    def model(digest: str) -> dict[str, Any]:
        return _known(service.board, digest).to_json()


def _shown(service: Service, api_keys: KeyRing) -> Shown:
    return Shown(
        facts=service.facts(),
        models=[model.to_json() for model in service.board.statuses()],
        miners=service.miners.latest()[1] or [],
        needs_key=api_keys.first() is not None,
        miner_urls=service.miner_urls,
    )


def _add_events(app: FastAPI, service: Service) -> None:
    def stream(digest: str | None, news: Sequence[Bulletin] = ()) -> StreamingResponse:
        events = status_events(service.board, digest, service.stop, news)
        return StreamingResponse(events, media_type="text/event-stream", headers=_SSE_HEADERS)

    @app.get("/api/v1/events")
    async def all_events() -> StreamingResponse:
        return stream(None, service.news)

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
