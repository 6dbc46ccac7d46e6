"""The engine process: `python -m services.miner.engine <socket> <flight recorder> <parent pid> <log level>`.

Only `process.py` starts it. It loads what the first message names, then steps while there is work. It dies with the API
process, whatever way that one goes: the kernel kills it when the thread that started it is gone (`PR_SET_PDEATHSIG`),
and a closed channel ends it at once, even in the middle of a decode.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import socket
import sys
import threading
from typing import NoReturn

import structlog

from services.miner.engine.abort import AbortSwitch
from services.miner.engine.backend import GpuGoneError
from services.miner.engine.backends import open_backend
from services.miner.engine.channel import EngineChannel
from services.miner.engine.engine import Engine
from services.miner.engine.flight import FlightRecorder, Work
from services.miner.engine.messages import Cancel, Load, Loaded, LoadFailed, Submit, ToEngine
from services.miner.kernels import load_kernels
from services.miner.llama_log import take_log
from shared.errors import EngineError, ExitCode, IntegrityError, R3mesError
from shared.log import configure_logging
from shared.store.records import StatIdentity

PR_SET_PDEATHSIG = 1

_log = structlog.get_logger("miner.engine")


def main(arguments: list[str]) -> int:
    """Run until the channel closes; return the exit code."""
    connection = socket.socket(fileno=int(arguments[0]))
    switch = AbortSwitch(FlightRecorder(int(arguments[1])))
    _die_with_parent(int(arguments[2]))
    # The API process decides when to stop; a Ctrl-C reaches the whole terminal group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    configure_logging("miner", arguments[3])
    take_log()
    channel = EngineChannel(connection)
    load = channel.receive()
    if not isinstance(load, Load):
        return ExitCode.FAILURE
    try:
        load_kernels()
        engine, loaded = _load(load, switch)
    except R3mesError as error:
        channel.send(LoadFailed(error.message, gpu_gone=isinstance(error, GpuGoneError)))
        return error.exit_code
    inbox: queue.SimpleQueue[ToEngine] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(channel, inbox, switch), name="channel", daemon=True).start()
    channel.send(loaded)
    try:
        _run(engine, inbox, channel, switch)
    except EngineError as error:
        _log.error("the engine stops", reason=error.message)
        return error.exit_code
    except OSError:
        return ExitCode.OK  # the API process is gone


def _load(load: Load, switch: AbortSwitch) -> tuple[Engine, Loaded]:
    if StatIdentity.of(os.fstat(load.descriptor)) != load.identity:
        raise IntegrityError("the file changed after it was checked")
    backend, limits = open_backend(load, switch)
    return Engine(backend, limits, switch), backend.loaded()


def _run(engine: Engine, inbox: queue.SimpleQueue[ToEngine], channel: EngineChannel, switch: AbortSwitch) -> NoReturn:
    switch.working(Work.IDLE)
    while True:
        _take(engine, inbox, switch, wait=engine.idle)
        step = engine.step()
        switch.working(Work.IDLE)
        channel.send(step)


def _take(engine: Engine, inbox: queue.SimpleQueue[ToEngine], switch: AbortSwitch, *, wait: bool) -> None:
    """Handle every message that is there; with `wait`, at least one."""
    while wait or not inbox.empty():
        message = inbox.get()
        wait = False
        match message:
            case Submit():
                switch.working(Work.ADMITTING, (message.request_id,))
                engine.submit(message)
                switch.working(Work.IDLE)
            case Cancel():
                engine.cancel(message.request_id)
                switch.handled(message.request_id)
            case Load():
                raise EngineError("a second model was sent to a running engine")


def _read(channel: EngineChannel, inbox: queue.SimpleQueue[ToEngine], switch: AbortSwitch) -> None:
    while (message := channel.receive()) is not None:
        if isinstance(message, Cancel):
            switch.cancelled(message.request_id)
        inbox.put(message)
    os._exit(ExitCode.OK)  # nobody is left to answer; a running decode is not worth waiting for


def _die_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it went before the line above
        os._exit(ExitCode.FAILURE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
