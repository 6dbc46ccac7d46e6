"""What stands before every route: a request id, the API keys, the size of the body. Plain ASGI, no framework.

Order: id → key (before anything of the body is read) → size, counted while it arrives, whatever its header says.
"""

from __future__ import annotations

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from services.miner.api.errors import ApiError
from services.miner.metrics import MinerMetrics
from shared.api_keys import KeyRing

MAX_HEADER_BYTES = 32 * 1024  # of one request, all together
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Guard:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, *, keys: KeyRing, max_body_bytes: int, metrics: MinerMetrics) -> None:
        self._app = app
        self._metrics = metrics
        self._keys = keys
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id")
        request_id = given if given and _REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
        send = _named(send, request_id)
        refusal = self._refusal(scope["path"], headers)
        if refusal is not None:
            self._metrics.refused(scope["path"], refusal.outcome)
            await refusal.response()(scope, receive, send)
            return
        with bound_contextvars(request_id=request_id):  # whatever is logged for this request names it
            await self._app(scope, self._counted(receive), send)

    def _refusal(self, path: str, headers: Headers) -> ApiError | None:
        if (path == "/v1" or path.startswith("/v1/")) and not self._keys.authorises(headers.get("authorization")):
            return ApiError(401, "a valid API key is needed: Authorization: Bearer <key>", code="invalid_api_key")
        if sum(len(name) + len(value) for name, value in headers.raw) > MAX_HEADER_BYTES:
            return ApiError(431, f"the headers are larger than {MAX_HEADER_BYTES} bytes")
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._max_body_bytes:
            return self._too_large()
        return None

    def _counted(self, receive: Receive) -> Receive:
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_body_bytes:
                error = self._too_large()
                raise HTTPException(error.status, error.message)
            return message

        return counted

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the body is larger than {self._max_body_bytes} bytes")


def _named(send: Send, request_id: str) -> Send:
    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["x-request-id"] = request_id
        await send(message)

    return named
