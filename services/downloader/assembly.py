"""The downloader's rooms put together into one controller: by the service, and by `run_once` for a command."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry

from services.downloader.board import Board
from services.downloader.chain_watch import ChainWatch
from services.downloader.controller import Controller, Verdicts
from services.downloader.controls import Controls
from services.downloader.desired import desired_pins
from services.downloader.limits import DEFAULT_LIMITS, Limits
from services.downloader.metrics import DownloaderMetrics
from services.downloader.observe import measure_room
from services.downloader.runner import Runner
from services.downloader.settings import DownloaderSettings
from services.downloader.settler import Settler
from services.downloader.sources.offers import Offers
from services.downloader.transfer.lease import Identity, LeaseKeeper
from services.downloader.transfer.space import Room
from services.downloader.transfer.transfer import Workshop
from services.downloader.transfers import Transfers
from shared.genesis import ModelPin
from shared.store.layout import StoreLayout
from shared.store.trust import Trust, TrustWatch

Pins = Callable[[Trust], tuple[ModelPin, ...]]


def build_controller(  # noqa: PLR0913 - what a downloader has is put together here
    settings: DownloaderSettings,
    environ: Mapping[str, str],
    layout: StoreLayout,
    watch: TrustWatch,
    stop: threading.Event,
    crashed: Callable[[BaseException], None],
    *,
    board: Board,
    courier: Verdicts,
    pins: Pins = desired_pins,
    limits: Limits = DEFAULT_LIMITS,
) -> Controller:
    """Return a controller of the models that `pins` picks; raises ConfigurationError for senseless addresses."""
    metrics = DownloaderMetrics(CollectorRegistry(), layout.incoming)
    wake = threading.Event()
    controls = Controls(layout)
    keeper = LeaseKeeper(Identity.of_this_process())
    offers = Offers(settings, environ, limits)
    offers.check(watch.current)

    def room(digest: str) -> Room:
        return measure_room(layout, digest, desired_pins(watch.current), courier.copies())

    runner = Runner(wake.set, crashed)
    shop = Workshop(layout, keeper, limits, metrics, room)
    return Controller(
        layout=layout,
        watch=watch,
        controls=controls,
        transfers=Transfers(shop, offers, controls, runner, settings.reconcile_seconds, wake.set),
        settler=Settler(layout, keeper, runner, offers.wrong_files, is_host=settings.store_kind == "host"),
        runner=runner,
        courier=courier,
        board=board,
        metrics=metrics,
        chain=ChainWatch(settings.chain_rpc or (), environ, limits, lambda: pins(watch.current), stop),
        reconcile_seconds=settings.reconcile_seconds,
        stop=stop,
        wake=wake,
        pins=pins,
    )
