"""Who may ask for a change: a POST needs an API key once keys are set, and comes from no foreign web page."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import Request

from services.downloader.api.errors import ApiError
from shared.api_keys import KeyRing


class PostGuard:
    """A FastAPI dependency that lets a POST through or raises ApiError."""

    def __init__(self, api_keys: KeyRing) -> None:
        self._keys = api_keys

    def __call__(self, request: Request) -> None:
        """Check origin, then key."""
        if not is_same_origin(request.headers.get("origin"), request.headers.get("host", "")):
            raise ApiError(403, "the request comes from another site", "permission_error", "foreign_origin")
        if not self._keys.authorises(request.headers.get("authorization")):
            raise ApiError(
                401,
                "an API key is needed: Authorization: Bearer <key>",
                "authentication_error",
                "invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def is_same_origin(origin: str | None, host: str) -> bool:
    """Tell whether an Origin header is absent or names the host that was asked (TLS may end before us)."""
    if origin is None:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and parts.netloc.lower() == host.lower() != ""
