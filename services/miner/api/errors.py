"""Every error in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`, whoever raised it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from services.miner.metrics import MinerMetrics, Outcome

_log = structlog.get_logger("miner.request")

RETRY_SOON_SECONDS = 1
RETRY_LOAD_SECONDS = 5

OUTCOMES = {
    401: Outcome.UNAUTHORIZED,
    429: Outcome.BUSY,
    500: Outcome.ERROR,
    501: Outcome.INVALID,
    503: Outcome.UNAVAILABLE,
    504: Outcome.TIMEOUT,
}


class ErrorDetail(BaseModel):
    """What is wrong, and with which field."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """The body of every answer that is none."""

    error: ErrorDetail


# For the OpenAPI document; without them the framework promises its own shape, with another status.
ANSWERS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "The request, its key, or its timing is wrong."},
    "5XX": {"model": ErrorAnswer, "description": "The miner cannot answer this now."},
}


class ApiError(Exception):
    """An answer that is not one; `retry_after` in seconds becomes the header of that name."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.retry_after = retry_after

    @property
    def outcome(self) -> Outcome:
        """How this error is counted."""
        return OUTCOMES.get(self.status, Outcome.INVALID)

    def body(self) -> dict[str, object]:
        """Return the JSON of the answer."""
        message = self.message.encode("utf-8", "replace").decode()
        return {"error": {"message": message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """Return the answer."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:  # noqa: PLR2004  (Unauthorized must say how)
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(), status_code=self.status, headers=headers)


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Return a 400: the request itself is wrong."""
    return ApiError(400, message, param=param, code=code)


def crashes_engine(seconds: float) -> ApiError:
    """Return a 422: the miner works, this request does not; a 5xx would make clients send it again by themselves."""
    return ApiError(
        422,
        "the engine died while it worked on this request; the same request is refused for a while",
        code="request_crashes_engine",
        retry_after=math.ceil(seconds),
    )


def unavailable(message: str, retry_after: int = RETRY_LOAD_SECONDS) -> ApiError:
    """Return a 503: not now."""
    return ApiError(503, message, kind="server_error", code="service_unavailable", retry_after=retry_after)


def install(app: FastAPI, metrics: MinerMetrics) -> None:
    """Override the framework's own answers; what they refuse reached no endpoint and is counted here."""

    def on_validation_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101  (registered for this class alone)
        metrics.refused(request.url.path, Outcome.INVALID)
        if "json" not in request.headers.get("content-type", ""):
            return invalid("the body must be JSON, sent with Content-Type: application/json").response()
        return describe_validation(error.errors()[0]).response()

    def on_http_exception(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101  (registered for this class alone)
        metrics.refused(request.url.path, Outcome.INVALID)
        return _describe_http(request, error).response()

    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(Exception, _on_crash)


async def _on_api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)  # noqa: S101  (registered for this class alone)
    # A flood of refusals must not become a flood of lines; the metrics count each.
    log = _log.warning if error.status >= 500 else _log.debug  # noqa: PLR2004  (the miner's side of the statuses)
    log("refused", path=request.url.path, status=error.status, reason=error.message[:200])
    return error.response()


def describe_validation(first: Mapping[str, Any]) -> ApiError:
    """Return the 400 for the first thing that is wrong with a body, with the field's name."""
    place = [str(part) for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        return invalid(f"the body is not valid JSON: {first.get('ctx', {}).get('error', first['msg'])}")
    param = ".".join(place).encode("utf-8", "replace").decode()[:200] or None
    message = str(first["msg"]).removeprefix("Value error, ")
    return invalid(f"{param or 'the body'}: {message}", param)


def _describe_http(request: Request, error: HTTPException) -> ApiError:
    what = f"{request.method} {request.url.path}"
    match error.status_code:
        case 404:
            return ApiError(404, f"unknown request URL: {what}", code="unknown_url")
        case 405:
            return ApiError(405, f"not allowed here: {what}", code="method_not_allowed")
        case status:
            return ApiError(status, str(error.detail))


async def _on_crash(_request: Request, _error: Exception) -> JSONResponse:
    # The framework raises it again after this answer, so that it stands in the log with its trace.
    return ApiError(500, "the miner failed on this request; its log says why", kind="server_error").response()
