"""`python -m shared.healthcheck`: what Docker runs inside a container; exit 0 when its service answers `/healthz`.

It runs every few seconds beside the service, so it imports nothing that takes long.
"""

from __future__ import annotations

import http.client
import os
import sys

TIMEOUT_SECONDS = 4.0
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (compared, not bound)


def is_alive(listen: str) -> bool:
    """Ask the service that listens on `host:port`, over loopback where it listens on every address."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    connection = http.client.HTTPConnection(LOOPBACK.get(host, host), int(port), timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if is_alive(os.environ["R3MES_LISTEN"]) else 1)
