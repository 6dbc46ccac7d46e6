"""Errors of the HTTP API, all in one shape: `{"error": {"message", "type", "code"}}`."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

_CODES = {HTTPStatus.NOT_FOUND: "not_found", HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed"}


class ApiError(Exception):
    """An answer that is an error."""

    def __init__(
        self, status: int, message: str, kind: str, code: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.headers = dict(headers or {})


def unknown_model(digest: str) -> ApiError:
    """The error for a digest that is not pinned."""
    return ApiError(404, f"no pinned model has the SHA-256 {digest[:80]}", "invalid_request_error", "model_not_found")


def install_error_answers(app: FastAPI) -> None:
    """Make every error of the application answer in the one shape."""

    async def ours(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)  # noqa: S101 - registered for this class alone
        return _answer(error.status, error.message, error.kind, error.code, error.headers)

    async def theirs(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
        code = _CODES.get(HTTPStatus(error.status_code), "http_error")
        message = f"{request.method} {request.url.path}: {error.detail}"
        return _answer(error.status_code, message, "invalid_request_error", code, dict(error.headers or {}))

    app.add_exception_handler(ApiError, ours)
    app.add_exception_handler(HTTPException, theirs)


def _answer(status: int, message: str, kind: str, code: str, headers: dict[str, str]) -> JSONResponse:
    document = {"error": {"message": message, "type": kind, "code": code}}
    return JSONResponse(document, status_code=status, headers=headers)
