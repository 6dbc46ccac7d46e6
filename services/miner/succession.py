"""The next model: checked, and loaded beside the served one where memory holds both.

That takes minutes for a large file, so it goes on in a task of its own while the keeper watches over the served one.
Order: `begin` as often as one likes → `outcome` → `take_checked` or `take_loaded`; `close` before the process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from services.miner.model.check import CheckedModel
from services.miner.model.find import identity_by_name
from services.miner.phases import Ending
from services.miner.served import ServedModel
from shared.errors import ConfigurationError, EngineError, IntegrityError, NotReadyError
from shared.genesis import ModelPin
from shared.store.layout import StoreLayout
from shared.store.records import StatIdentity

_log = structlog.get_logger("miner.keeper")


@dataclass(frozen=True, slots=True)
class Steps:
    """What it is made of. `no_room` says why both do not fit, empty where they do; `wanted`: still pinned and true."""

    check: Callable[[ModelPin], Awaitable[CheckedModel]]
    no_room: Callable[[CheckedModel, ServedModel], str]
    load: Callable[[CheckedModel], Awaitable[ServedModel]]
    wanted: Callable[[CheckedModel | ServedModel], bool]
    end: Callable[[ServedModel], Awaitable[None]]


class Succession:
    """At most one successor at a time. One that was refused is not tried again before its file is another."""

    def __init__(self, layout: StoreLayout, steps: Steps) -> None:
        self._layout = layout
        self._steps = steps
        self._work: asyncio.Task[None] | None = None
        self._checked: CheckedModel | None = None
        self._loaded: ServedModel | None = None
        self._refused: tuple[str, StatIdentity | None] | None = None

    @property
    def under_way(self) -> bool:
        """Whether a successor is checked or loaded now, or its outcome not yet looked at."""
        return self._work is not None

    def begin(self, target: ModelPin, served: ServedModel) -> None:
        """Begin with a successor of `served`, unless one is under way, its file is not there, or it was refused."""
        file = (target.sha256, identity_by_name(self._layout, target))
        if self._work is None and file[1] is not None and file != self._refused:
            self._work = asyncio.create_task(self._prepare(target, file, served), name="succession")

    async def outcome(self, *, wait: bool = False) -> Ending | None:
        """Return what the served model ends for: `overtaken` by a loaded one, `succeeded` by a checked one.

        None while it is under way, unless told to `wait`, and where it came to nothing.
        """
        if self._work is None or not (wait or self._work.done()):
            return None
        work = self._work
        await asyncio.wait((work,))
        self._work = None
        work.result()
        found = self._loaded or self._checked
        if found is None:
            return None
        if not self._steps.wanted(found):
            await self._drop()
            return None
        return Ending.SUCCEEDED if self._loaded is None else Ending.OVERTAKEN

    def take_checked(self) -> CheckedModel | None:
        """Return, once, the successor that is checked and not loaded."""
        checked, self._checked = self._checked, None
        return checked

    def take_loaded(self) -> ServedModel:
        """Return, once, the successor that is loaded; only after `outcome` said so."""
        loaded, self._loaded = self._loaded, None
        assert loaded is not None  # noqa: S101  (as the outcome was)
        return loaded

    async def close(self) -> None:
        """End whatever is under way, or waits to be taken."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait((self._work,))
        await self._drop()

    async def _drop(self) -> None:
        if self._loaded is not None:
            await self._steps.end(self.take_loaded())
        if (checked := self.take_checked()) is not None:
            checked.close()

    async def _prepare(self, target: ModelPin, file: tuple[str, StatIdentity | None], served: ServedModel) -> None:
        try:
            checked = await self._steps.check(target)
        except (IntegrityError, NotReadyError) as error:
            self._refuse(file, target, error.message)
            return
        reason = self._steps.no_room(checked, served)
        if reason:
            _log.info("the next model is loaded when this one has answered", reason=reason)
            self._checked = checked
            return
        with contextlib.closing(checked):
            try:
                self._loaded = await self._steps.load(checked)
            except (EngineError, ConfigurationError) as error:
                self._refuse((target.sha256, checked.identity), target, error.message)

    def _refuse(self, file: tuple[str, StatIdentity | None], target: ModelPin, reason: str) -> None:
        self._refused = file
        _log.error("the next model is not loaded", model=target.model_name, reason=reason)
