"""What is left to do for a verified model: remember it, link it on a host, tidy incoming up."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from services.downloader import control_rules as rules
from services.downloader.controls import Controls
from services.downloader.host_link import Place, link_path, look_at, make_link, replace_adopted, sweep_links
from services.downloader.interrupt import Interrupt
from services.downloader.limits import VERDICT_SECONDS
from services.downloader.observe import StoreView
from services.downloader.reconcile import History
from services.downloader.runner import Runner
from services.downloader.sources.base import TransientSourceError
from services.downloader.sources.imported import identity_of
from services.downloader.sources.offers import WrongFiles
from services.downloader.transfer.incoming import remove_generation
from services.downloader.transfer.lease import LeaseKeeper
from shared.genesis import ModelPin
from shared.store.layout import StoreLayout

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Settler:
    """Each step is idempotent and costs nothing when there is nothing to do."""

    layout: StoreLayout
    keeper: LeaseKeeper
    runner: Runner
    wrong_files: WrongFiles
    is_host: bool
    _notices: dict[str, str] = field(default_factory=dict)

    def notice(self, pin: ModelPin) -> str:
        """Return what a person should know about a verified model, empty if nothing."""
        return self._notices.get(pin.sha256, "")

    def settle(self, pin: ModelPin, view: StoreView, history: History, controls: Controls, *, links: bool) -> None:
        """Do what is left to do; `links`: the pin is of the accepted genesis, so the link belongs to it."""
        verified_at = view.receipt.verified_at if view.receipt else 0.0
        control = history.control
        if control.attempts or control.rounds or control.reason or control.message or history.mismatches:
            controls.update(pin.sha256, lambda before: rules.after_verified(before, verified_at))
        if view.leftovers and time.time() - verified_at >= VERDICT_SECONDS:
            self._tidy(pin)
        if self.is_host and links:
            self._link(pin)

    def sweep(self, accepted: frozenset[str]) -> None:
        """On a host: remove the links to models that left the accepted genesis."""
        if self.is_host:
            with suppress(OSError):  # looked at again in the next turn
                for name in sweep_links(self.layout, accepted):
                    log.info("removed a link to what is not accepted any more", name=name)

    def _tidy(self, pin: ModelPin) -> None:
        """Remove what a former download left in incoming; the verifier does it for what it has hashed itself."""
        path = self.layout.lease(pin.sha256)
        with suppress(OSError):
            lease = self.keeper.acquire(path)
            if lease is not None:
                remove_generation(self.layout, pin.sha256)
                self.keeper.release(path, lease)

    def _link(self, pin: ModelPin) -> None:
        try:
            place = look_at(self.layout, pin)
            if place is Place.FREE:
                make_link(self.layout, pin)
        except OSError as error:
            self._say(pin, f"cannot link {link_path(self.layout, pin)}: {error.strerror}")
            return
        path = link_path(self.layout, pin)
        match place:
            case Place.FREE | Place.LINKED:
                self._notices.pop(pin.sha256, None)
            case Place.FOREIGN:
                self._say(pin, f"{path} is in the way of the link and is left alone")
            case Place.FILE:
                identity = identity_of(path, follow=False)
                if identity is not None and self.wrong_files.has(path, identity):
                    self._say(pin, f"{path} is not the pinned file and is left alone")
                elif self.runner.is_free:
                    self.runner.start(pin.sha256, lambda interrupt: self._replace(pin, interrupt), None)

    def _replace(self, pin: ModelPin, interrupt: Interrupt) -> None:
        """Hash a file that stands where the link belongs; replace it if it is the pinned one."""
        path = link_path(self.layout, pin)
        try:
            wrong = replace_adopted(self.layout, pin, interrupt)
        except (OSError, TransientSourceError) as error:
            log.warning("cannot look at a local file", file=str(path), error=str(error))
            return
        if wrong is not None:
            self.wrong_files.add(path, wrong)
        else:
            log.info("adopted file replaced by the link", file=str(path))

    def _say(self, pin: ModelPin, text: str) -> None:
        if self._notices.get(pin.sha256) != text:
            self._notices[pin.sha256] = text
            log.warning("no link for a verified model", model=pin.model_name, why=text)
