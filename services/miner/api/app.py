"""The application: routes, what stands before them, and the small endpoints. `build_app` puts the rooms together."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.miner.api import errors
from services.miner.api.admission import Admission
from services.miner.api.completions import Completions
from services.miner.api.embeddings import Embeddings
from services.miner.api.errors import ApiError
from services.miner.api.guard import Guard
from services.miner.keeper import Keeper
from services.miner.metrics import MinerMetrics
from services.miner.settings import MinerSettings
from shared.api_keys import KeyRing
from shared.version import __version__


def build_app(keeper: Keeper, settings: MinerSettings, metrics: MinerMetrics) -> FastAPI:
    """Return the ASGI application of one miner."""
    app = FastAPI(
        title="R3MES miner",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=errors.ANSWERS,
    )
    errors.install(app, metrics)
    app.include_router(_status_routes(keeper, metrics))
    app.include_router(_model_routes(keeper))
    admission = Admission(keeper, settings)
    app.include_router(Completions(admission, settings, metrics).router())
    app.include_router(Embeddings(admission, settings, metrics).router())
    keys = KeyRing(settings.keys, settings.api_keys_file)
    app.add_middleware(Guard, keys=keys, max_body_bytes=settings.max_body_bytes, metrics=metrics)
    return app


def _status_routes(keeper: Keeper, metrics: MinerMetrics) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Tell that the process lives."""
        return {"status": "ok"}

    @router.get("/readyz", response_model=None)
    async def readyz() -> JSONResponse:
        """Tell whether it can answer now, and why not."""
        readiness, target = keeper.readiness, keeper.target
        body = {
            "ready": readiness.ready,
            "state": readiness.phase,
            "reason": readiness.reason,
            "model": None if target is None else target.model_name,
            "sha256": None if target is None else target.sha256,
        }
        return JSONResponse(body, status_code=200 if readiness.ready else 503)

    @router.get("/metrics", response_model=None, response_class=PlainTextResponse)
    async def read_metrics() -> Response:
        """Return the metrics in Prometheus's text form."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _model_routes(keeper: Keeper) -> APIRouter:
    router = APIRouter()

    def models() -> list[dict[str, object]]:
        served = keeper.served or keeper.unloaded
        if served is None:
            return []
        described = {**served.describe(), "loaded": keeper.served is not None}
        return [
            {"id": served.name, "object": "model", "created": served.loaded_at, "owned_by": "r3mes", "r3mes": described}
        ]

    @router.get("/v1/models")
    async def list_models() -> dict[str, object]:
        """List the model that is loaded, if one is."""
        return {"object": "list", "data": models()}

    @router.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, object]:
        """Describe one model; its name may hold slashes."""
        for model in models():
            if model["id"] == name:
                return model
        raise ApiError(404, f"the model {name[:200]!r} is not served", param="model", code="model_not_found")

    return router
