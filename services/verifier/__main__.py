"""The verifier process: settings ▸ store, trust ▸ health, metrics ▸ sweep ▸ followers ▸ jobs from Redis, until SIGTERM.

It exits 0 within five seconds of SIGTERM or SIGINT, Redis there or not. That is safe at any instant, since every
instant is safe for SIGKILL.
"""

from __future__ import annotations

import os
import sys
import threading

import structlog
from prometheus_client import CollectorRegistry

from services.verifier.follower import Follower
from services.verifier.following import Following
from services.verifier.housekeeping import Housekeeper, recheck, sweep_orphans
from services.verifier.job import set_verifier
from services.verifier.metrics import VerifierMetrics
from services.verifier.monitor import Monitor
from services.verifier.progress import HintsObserver
from services.verifier.settings import VerifierSettings
from services.verifier.verification import Verifier
from shared.acceptance import start_host_store
from shared.errors import ExitCode, R3mesError
from shared.hints import RedisHints
from shared.log import configure_logging
from shared.process_server import ProcessServer
from shared.queue import VerifyQueue, run_worker
from shared.redis_link import RedisLink
from shared.settings import load_settings
from shared.stopping import stop_on_signals
from shared.store.trust import TrustWatch

# The bytes of verified/ are for every reader, also where a parent's umask was tighter.
UMASK = 0o022
# Of the five seconds until a stop has to be over; what is still in a system call then is left to the kernel.
STOP_SECONDS = 3.5

log = structlog.get_logger(__name__)


def main() -> int:
    """Run the verifier; return its exit code."""
    configure_logging("verifier")
    try:
        settings = load_settings(VerifierSettings)
        configure_logging("verifier", settings.log_level)
        run(settings)
    except R3mesError as error:
        log.critical(error.message, next_step=error.next_step)
        return error.exit_code
    return ExitCode.OK


def run(settings: VerifierSettings) -> None:
    """Serve until a signal comes; raises R3mesError when the start cannot succeed."""
    os.umask(UMASK)
    stop = threading.Event()
    done = stop_on_signals(stop, within_seconds=STOP_SECONDS)
    layout = start_host_store(settings)
    registry = CollectorRegistry()
    metrics = VerifierMetrics(registry)
    link = RedisLink(settings.redis_url.get_secret_value())
    observer = HintsObserver(RedisHints(link, settings.node))
    verifier = Verifier(layout, TrustWatch(layout), metrics, stop, observer)
    verifier.poll_trust()
    set_verifier(verifier)
    monitor = Monitor(link, VerifyQueue(link, settings.node), metrics)
    server = ProcessServer(settings.listen, ready=monitor.ready, registry=registry)
    server.start()
    threading.Thread(target=monitor.run, args=(stop,), name="monitor", daemon=True).start()
    log.info("verifier started", store=str(layout.root), node=settings.node, port=server.port)
    sweep_orphans(verifier)
    following = Following(layout, Follower(verifier), stop)
    following.start()  # Redis there or not, and before the bytes of verified files are looked at
    recheck(verifier)
    monitor.is_swept = True
    housekeeper = Housekeeper(verifier, scrub_hours=settings.scrub_hours, retain_hours=settings.retain_hours)
    housekeeper.start()
    run_worker(link, settings.node, stop, on_refused=metrics.count_refused, serving=monitor.serving)
    following.close()
    server.stop()
    log.info("verifier stopped")
    done.set()
    if following.has_failed or housekeeper.has_failed:
        raise R3mesError("a thread of the verifier failed", next_step="start it again; the log says why")


if __name__ == "__main__":
    sys.exit(main())
