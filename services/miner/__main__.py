"""The miner: `python -m services.miner`. Waits for a verified model, checks it, serves it, and dies without a trace.

The rooms, in the order in which data goes through them: `settings` → `model` (which pin, the check of its file, the
hardware, the vocabulary) → `keeper` (loads, watches, swaps) → `engine` (a process of its own: scheduler, llama.cpp,
sampling, text) → `api` (what comes in and goes out over HTTP).

SIGTERM or Ctrl-C: not ready, open requests get `R3MES_DRAIN_SECONDS`, exit 0; a second one does not wait for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator

import structlog
import uvicorn
from prometheus_client import CollectorRegistry

from services.miner.api.app import build_app
from services.miner.api.guard import MAX_HEADER_BYTES
from services.miner.keeper import Keeper
from services.miner.kernels import load_kernels
from services.miner.llama_log import take_log
from services.miner.metrics import MinerMetrics
from services.miner.model.find import choose
from services.miner.model.hardware import require_possible
from services.miner.model.probe import probe_machine
from services.miner.recovery import Patience, Recovery
from services.miner.settings import MinerSettings, load_miner_settings
from shared.acceptance.start import start_host_store
from shared.errors import ConfigurationError, ExitCode, R3mesError
from shared.log import configure_logging
from shared.settings import ListenAddress
from shared.store.trust import TrustWatch

UMASK = 0o007
KEEP_ALIVE_SECONDS = 15  # longer than Prometheus' five, at which its next scrape met the end of its connection
CLOSE_SECONDS = 2  # for connections that are still open once nothing runs any more

_log = structlog.get_logger("miner")


def main(patience: Patience | None = None) -> int:
    """Run until a signal; return the exit code."""
    configure_logging("miner")
    os.umask(UMASK)
    try:
        settings = load_miner_settings()
        configure_logging("miner", settings.log_level)
        take_log()
        watch = TrustWatch(start_host_store(settings))
        choose(watch.current.genesis, settings.model)
        load_kernels()
        machine = probe_machine()
        require_possible(settings, machine)
        with _listen(settings.listen) as listener:
            metrics = MinerMetrics(CollectorRegistry())
            keeper = Keeper(settings, watch, machine, metrics, Recovery(patience or Patience()))
            asyncio.run(_serve(keeper, settings, metrics, listener))
    except R3mesError as error:
        _log.error(error.message, next=error.next_step)
        return error.exit_code
    return ExitCode.OK


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers, which would end the process before it has drained."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(keeper: Keeper, settings: MinerSettings, metrics: MinerMetrics, listener: socket.socket) -> None:
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    config = uvicorn.Config(
        build_app(keeper, settings, metrics),
        log_config=None,
        access_log=settings.debug,
        server_header=False,
        lifespan="off",
        http="h11",  # the other parser bounds no header
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,  # of those that are still on their way
        timeout_graceful_shutdown=CLOSE_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    keeping = asyncio.create_task(keeper.run(), name="keeper")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    host, port = listener.getsockname()[:2]
    _log.info("listening", host=host, port=port)
    done, _ = await asyncio.wait((serving, keeping, stopping), return_when=asyncio.FIRST_COMPLETED)
    if stopping in done:
        await _drain(keeper, settings, hurry)
    keeping.cancel()
    server.should_exit = True
    with contextlib.suppress(asyncio.CancelledError):
        await keeping
    await serving
    stopping.cancel()


async def _drain(keeper: Keeper, settings: MinerSettings, hurry: asyncio.Event) -> None:
    _log.info("draining", seconds=settings.drain_seconds)
    keeper.refuse_new_requests()
    tasks = [asyncio.create_task(keeper.drained()), asyncio.create_task(hurry.wait())]
    await asyncio.wait(tasks, timeout=settings.drain_seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _listen(address: ListenAddress) -> socket.socket:
    try:
        family, *_, target = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server((str(target[0]), int(target[1])), family=family, backlog=2048)
    except OSError as error:
        raise ConfigurationError(
            f"R3MES_LISTEN: cannot listen on {address.host}:{address.port}: {error}",
            next_step="choose another address, or stop who listens there",
        ) from error


if __name__ == "__main__":
    sys.exit(main())
