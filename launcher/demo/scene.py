"""What the story of one demo is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from launcher.answer import Question
from launcher.demo.environment import Wiring
from launcher.demo.places import Places
from shared.genesis import ModelPin
from shared.store.layout import StoreLayout


@dataclass(frozen=True, slots=True)
class Scene:
    """Which model (`size` in bytes), where everyone is, who asks what, and what the origin has sent so far."""

    pin: ModelPin
    size: int
    places: Places
    wiring: Wiring
    question: Question
    api_key: str | None
    served_bytes: Callable[[], int]

    @property
    def layout(self) -> StoreLayout:
        """The demo's store."""
        return StoreLayout(self.places.models)


class CancelledError(Exception):
    """The demo ends before its story does."""
