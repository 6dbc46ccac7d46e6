"""The routes of the status page: `/`, and the files that it asks a browser to fetch."""

from __future__ import annotations

import time
from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from services.downloader.page.assets import SECURITY_HEADERS, assets
from services.downloader.page.render import Shown, status_page

_METHODS = ["GET", "HEAD"]


def add_page(app: FastAPI, shown: Callable[[], Shown]) -> None:
    """Add the page, whose first state is what `shown` returns."""

    @app.api_route("/", methods=_METHODS)
    def page() -> HTMLResponse:
        headers = {**SECURITY_HEADERS, "Cache-Control": "no-store"}
        return HTMLResponse(status_page(shown(), time.time()), headers=headers)

    @app.api_route("/page/{name}", methods=_METHODS)
    def asset(name: str, request: Request) -> Response:
        found = assets().get(name)
        if found is None:
            raise HTTPException(404, "no such file")
        headers = {**SECURITY_HEADERS, "Cache-Control": "no-cache", "ETag": found.etag}
        if request.headers.get("if-none-match") == found.etag:
            return Response(status_code=304, headers=headers)
        return Response(found.content, media_type=found.media_type, headers=headers)
