"""`python -m shared.chain`: one consultation in a process of its own, which its caller may kill at any time.

A genesis of hundreds of megabytes is read here, so it takes neither time nor memory from whoever asks. In: one line of
JSON, {"endpoints": [URL, ...], "seconds": N}; out: {"digests": [...] or null, "line": "..."}. It ends with its input.
"""

from __future__ import annotations

import json
import os
import sys
import threading

from shared.chain.consult import consult
from shared.chain.endpoints import Endpoint
from shared.errors import ExitCode

# As low as it goes: whatever else runs comes first.
_NICE = 19


def main() -> int:
    """Consult, print, end; returns the exit code."""
    os.nice(_NICE)
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    endpoints = tuple(Endpoint(url) for url in asked["endpoints"])
    said = consult(endpoints, os.environ, seconds=asked["seconds"])
    digests = None if said.registry is None else sorted(said.registry.digests)
    json.dump({"digests": digests, "line": said.describe()}, sys.stdout)
    sys.stdout.flush()
    os._exit(ExitCode.OK)  # whatever a thread still waits for


def _end_with_input() -> None:
    """End at once when who asked is gone."""
    sys.stdin.read()
    os._exit(ExitCode.FAILURE)


if __name__ == "__main__":
    sys.exit(main())
