"""The downloader process: settings ▸ store and trust ▸ API ▸ courier ▸ chain ▸ reconciler, until SIGTERM.

It exits 0 within a few seconds of SIGTERM or SIGINT with the journal saved. SIGKILL is safe at any instant.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping

import prometheus_client
import structlog
from prometheus_client import CollectorRegistry

from services.downloader.api.app import Service, build_api
from services.downloader.api.server import ApiServer
from services.downloader.board import Board
from services.downloader.chain_watch import ChainWatch
from services.downloader.controller import Controller
from services.downloader.controls import Controls
from services.downloader.courier import Courier
from services.downloader.desired import desired_pins
from services.downloader.limits import DEFAULT_LIMITS, Limits, limits_for
from services.downloader.metrics import DownloaderMetrics
from services.downloader.observe import measure_room
from services.downloader.runner import Runner
from services.downloader.settings import DownloaderSettings, load_downloader_settings
from services.downloader.settler import Settler
from services.downloader.sources.offers import Offers
from services.downloader.transfer.lease import Identity, LeaseKeeper
from services.downloader.transfer.space import Room
from services.downloader.transfer.transfer import Workshop
from services.downloader.transfers import Transfers
from shared.acceptance import start_host_store
from shared.api_keys import KeyRing
from shared.errors import ExitCode, R3mesError
from shared.log import configure_logging
from shared.redis_link import RedisLink
from shared.settings import secret_values
from shared.stopping import stop_on_signals
from shared.store.layout import StoreLayout
from shared.store.trust import TrustWatch

# Files for the verifier's group, nothing for others.
UMASK = 0o007
# After this, whatever hangs in a system call is left to the kernel: every instant is safe for SIGKILL.
STOP_SECONDS = 12.0

log = structlog.get_logger(__name__)


def main() -> int:
    """Run the downloader; return its exit code."""
    configure_logging("downloader")
    try:
        settings = load_downloader_settings()
        configure_logging("downloader", settings.log_level)
        return run(settings, os.environ)
    except R3mesError as error:
        log.error(error.message, next_step=error.next_step)  # noqa: TRY400 - for a person: no traceback
        return error.exit_code


def run(settings: DownloaderSettings, environ: Mapping[str, str], limits: Limits = DEFAULT_LIMITS) -> int:
    """Serve until a signal comes; raises R3mesError when the start cannot succeed."""
    limits = limits_for(limits, settings.connections, settings.max_bytes_per_second)
    os.umask(UMASK)
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's own omission
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # starting and stopping is told by ourselves
    stop = threading.Event()
    crashes: list[BaseException] = []

    def crashed(error: BaseException) -> None:
        crashes.append(error)
        stop.set()

    stop_on_signals(stop, within_seconds=STOP_SECONDS)
    layout = start_host_store(settings)
    watch = TrustWatch(layout)
    link = RedisLink(settings.redis_url.get_secret_value())
    controller = build_controller(settings, environ, layout, watch, link, stop, crashed, limits=limits)
    service = Service(
        node=settings.node,
        root=layout.root,
        board=controller.board,
        courier=controller.courier,
        controller=controller,
        registry=controller.metrics.registry,
        stop=stop,
    )
    keys = KeyRing(secret_values(settings.api_keys), settings.api_keys_file)
    server = ApiServer(build_api(service, keys), settings.listen)
    controller.show()  # so that nobody is told that a pinned model is unknown
    server.start(on_end=lambda: None if stop.is_set() else crashed(RuntimeError("the API server ended")))
    controller.courier.start(controller.wake.set, crashed)
    controller.chain.start(controller.wake.set, crashed)
    log.info("downloader started", store=str(layout.root), node=settings.node, port=server.port)
    reconciler = threading.Thread(target=_guarded, args=(controller, stop, crashed), name="reconciler", daemon=True)
    reconciler.start()
    stop.wait()
    controller.wake.set()
    controller.courier.stop()
    reconciler.join(STOP_SECONDS)
    server.stop()
    for crash in crashes:
        log.error("the downloader failed; a restart goes on from the disk", exc_info=crash)
    log.info("downloader stopped")
    return ExitCode.FAILURE if crashes else ExitCode.OK


def build_controller(  # noqa: PLR0913 - what the process has is put together here
    settings: DownloaderSettings,
    environ: Mapping[str, str],
    layout: StoreLayout,
    watch: TrustWatch,
    link: RedisLink,
    stop: threading.Event,
    crashed: Callable[[BaseException], None],
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> Controller:
    """Put the rooms together; raises ConfigurationError for addresses that make no sense."""
    metrics = DownloaderMetrics(CollectorRegistry(), layout.root)
    board, wake = Board(), threading.Event()
    courier = Courier(link, settings.node, board, stop)
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
        chain=ChainWatch(settings.chain_rpc or (), environ, limits, lambda: desired_pins(watch.current), stop),
        reconcile_seconds=settings.reconcile_seconds,
        stop=stop,
        wake=wake,
    )


def _guarded(controller: Controller, stop: threading.Event, crashed: Callable[[BaseException], None]) -> None:
    """Run the reconciler; an error that nobody expected ends the process, and its supervisor starts it again."""
    try:
        controller.run()
    except Exception as error:  # noqa: BLE001 - the outermost loop of the process
        crashed(error)
    finally:
        stop.set()


if __name__ == "__main__":
    sys.exit(main())
