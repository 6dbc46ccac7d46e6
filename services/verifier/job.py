"""The one function that RQ may call: `verify(<64 hex>)`. What it works with is set once, at the start."""

from __future__ import annotations

from services.verifier.verification import Verifier
from shared.errors import NotReadyError

_verifier: Verifier | None = None


def set_verifier(verifier: Verifier) -> None:
    """Set what jobs of this process work with."""
    global _verifier  # noqa: PLW0603 - RQ calls a module's function by its name and hands it nothing of ours
    _verifier = verifier


def verify(digest: str) -> str:
    """Verify one digest and return how it ended, as text; raises NotReadyError outside a verifier process."""
    if _verifier is None:
        raise NotReadyError("this process is not a verifier", next_step="start it with python -m services.verifier")
    return _verifier.verify(digest).value
