"""The downloader process: settings ▸ store and trust ▸ API ▸ courier ▸ chain ▸ reconciler, until SIGTERM.

It exits 0 within a few seconds of SIGTERM or SIGINT with the journal saved. SIGKILL is safe at any instant.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial

import prometheus_client
import structlog

from services.downloader.api.app import Service, build_api
from services.downloader.api.server import ApiServer
from services.downloader.assembly import build_controller
from services.downloader.board import Board
from services.downloader.bulletin import Bulletin, keep_fresh
from services.downloader.controller import Controller
from services.downloader.courier import Courier
from services.downloader.limits import DEFAULT_LIMITS, Limits, limits_for
from services.downloader.miners.poll import MinerPoll
from services.downloader.node_facts import node_facts
from services.downloader.settings import DownloaderSettings, load_downloader_settings
from shared.acceptance import start_host_store
from shared.api_keys import KeyRing
from shared.errors import ExitCode, R3mesError
from shared.log import configure_logging
from shared.redis_link import RedisLink
from shared.settings import secret_values
from shared.stopping import stop_on_signals
from shared.store.trust import TrustWatch

# Files for the verifier's group, nothing for others.
UMASK = 0o007
# After this, whatever hangs in a system call is left to the kernel: every instant is safe for SIGKILL.
STOP_SECONDS = 12.0
# How often the status page's facts, and the miners, are looked at.
LOOK_SECONDS = 2.0

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
    board = Board()
    courier = Courier(link, settings.node, board, stop)
    controller = build_controller(
        settings, environ, layout, watch, stop, crashed, board=board, courier=courier, limits=limits
    )
    keys = KeyRing(secret_values(settings.api_keys), settings.api_keys_file)
    facts = partial(node_facts, settings.node, layout, controller, courier)
    news, miners = Bulletin("node"), Bulletin("miners")
    service = Service(
        board=board,
        facts=facts,
        news=(news, miners),
        miners=miners,
        miner_urls=tuple(place.url for place in settings.miner_places),
        controller=controller,
        registry=controller.metrics.registry,
        stop=stop,
    )
    server = ApiServer(build_api(service, keys), settings.listen)
    controller.show()  # so that nobody is told that a pinned model is unknown
    server.start(on_end=lambda: None if stop.is_set() else crashed(RuntimeError("the API server ended")))
    courier.start(controller.wake.set, crashed)
    controller.chain.start(controller.wake.set, crashed)
    keep_fresh(news, facts, LOOK_SECONDS, stop, crashed)
    keep_fresh(miners, MinerPoll(settings.miner_places, keys.first).look, LOOK_SECONDS, stop, crashed)
    log.info("downloader started", store=str(layout.root), node=settings.node, port=server.port)
    reconciler = threading.Thread(target=_guarded, args=(controller, stop, crashed), name="reconciler", daemon=True)
    reconciler.start()
    stop.wait()
    controller.wake.set()
    courier.stop()
    reconciler.join(STOP_SECONDS)
    server.stop()
    for crash in crashes:
        log.error("the downloader failed; a restart goes on from the disk", exc_info=crash)
    log.info("downloader stopped")
    return ExitCode.FAILURE if crashes else ExitCode.OK


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
