"""The chain's word while the downloader runs: asked now and then, in a process of its own at the lowest priority.

Until the first consultation has ended, which takes a minute at most, no download begins; after that only a quorum that
lacks a pin's digest stops one. The last quorum's word stands until another one speaks: endpoints out of reach neither
veto nor lift a veto.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from tempfile import TemporaryFile

import structlog

from services.downloader.limits import Limits
from services.downloader.reconcile import Action, Observation, Rest, Settle
from shared.chain import Endpoint, Registry
from shared.genesis import ModelPin
from shared.states import ModelState

log = structlog.get_logger(__name__)

VETO_MESSAGE = "the chain's registry does not hold this model: the pin or the chain's endpoints are wrong"
WAIT_MESSAGE = "waits for the chain's word"
STAYS_MESSAGE = "the chain's registry does not hold this model any more; what is verified stays"

_TICK_SECONDS = 0.1
_MOST_DOUBLINGS = 16
# Beyond the time of the consultation: to start, and to read what came.
_GRACE_SECONDS = 60.0
# What of our environment a consultation needs; it is given no secret.
_PASSED = frozenset(
    {"PATH", "PYTHONPATH", "HOME", "TMPDIR", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    | {name for upper in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY") for name in (upper, upper.lower())}
)


@dataclass(frozen=True, slots=True)
class Word:
    """What one consultation brought: the registry of a quorum, None without one; and a line for a person."""

    registry: Registry | None
    line: str


def chain_message(action: Action, observation: Observation) -> str:
    """Return what a person should know of the chain's word on a model, empty if nothing. Pure."""
    match action:
        case Settle() if observation.vetoed:
            return STAYS_MESSAGE
        case Rest(state=ModelState.VETOED):
            return VETO_MESSAGE
        case Rest(state=ModelState.ABSENT) if observation.unheard:
            return WAIT_MESSAGE
        case _:
            return ""


def pause_before_next(limits: Limits, *, is_vetoing: bool, silent: int) -> float:
    """Return the seconds until the chain is asked again; `silent` consultations in a row found no quorum. Pure."""
    if silent:
        return min(limits.chain_silent_seconds * 2.0 ** min(silent - 1, _MOST_DOUBLINGS), limits.chain_again_seconds)
    return limits.chain_veto_seconds if is_vetoing else limits.chain_again_seconds


class ChainWatch:
    """Holds the chain's word; without endpoints there is none, and nothing is asked.

    `pins` are those of this moment.
    """

    def __init__(
        self,
        endpoints: tuple[Endpoint, ...],
        environ: Mapping[str, str],
        limits: Limits,
        pins: Callable[[], tuple[ModelPin, ...]],
        stop: threading.Event,
    ) -> None:
        self._endpoints = endpoints
        self._environ = {name: value for name, value in environ.items() if name in _PASSED}
        self._limits = limits
        self._pins = pins
        self._stop = stop
        self._again = threading.Event()
        self._registry: Registry | None = None
        self._silent = 0
        self.is_pending = bool(endpoints)

    def vetoes(self, pin: ModelPin) -> bool:
        """Tell whether a quorum lacks this pin."""
        registry = self._registry
        return registry is not None and bool(registry.lacks([pin]))

    def ask_now(self) -> None:
        """Do not wait for the next time."""
        self._again.set()

    def start(self, wake: Callable[[], None], crashed: Callable[[BaseException], None]) -> None:
        """Begin to ask, in a thread of its own."""
        if self._endpoints:
            threading.Thread(target=self._guarded, args=(wake, crashed), name="chain", daemon=True).start()

    def _guarded(self, wake: Callable[[], None], crashed: Callable[[BaseException], None]) -> None:
        try:
            while not self._stop.is_set():
                self._again.clear()
                self._take(self._consult())
                wake()
                self._wait()
        except Exception as error:  # noqa: BLE001 - the outermost loop of this thread: the process ends with it
            crashed(error)

    def _take(self, word: Word) -> None:
        if word.registry is None:
            if not self._silent:
                log.warning("the chain check stops nothing", why=word.line)
            self._silent += 1
        elif word.registry != self._registry or self._silent:
            self._silent = 0
            self._registry = word.registry
            lacking = [pin.model_name for pin in word.registry.lacks(self._pins())]
            tell = log.warning if lacking else log.info
            tell("the chain's word", vetoed=lacking, why=word.line)
        self.is_pending = False

    def _wait(self) -> None:
        is_vetoing = any(self.vetoes(pin) for pin in self._pins())
        end = time.monotonic() + pause_before_next(self._limits, is_vetoing=is_vetoing, silent=self._silent)
        while not self._stop.is_set() and (left := end - time.monotonic()) > 0:
            if self._again.wait(min(left, _TICK_SECONDS * 5)):
                return

    def _consult(self) -> Word:
        """Run one consultation to its end, or kill it when its time is up or this process stops."""
        seconds = self._limits.chain_seconds
        request = json.dumps({"endpoints": [endpoint.url for endpoint in self._endpoints], "seconds": seconds})
        deadline = time.monotonic() + seconds + _GRACE_SECONDS
        try:
            with TemporaryFile() as output, self._spawn(output.fileno()) as process:
                try:
                    self._accompany(process, f"{request}\n".encode(), deadline)
                finally:
                    process.kill()
                process.wait()
                output.seek(0)
                return _word(output.read())
        except OSError as error:
            return Word(None, f"no consultation can be made: {error}")

    def _accompany(self, process: subprocess.Popen[bytes], request: bytes, deadline: float) -> None:
        """Ask, and wait until it has ended, its time is up, or this process stops."""
        if process.stdin is not None:  # stays open: it ends with us
            process.stdin.write(request)
            process.stdin.flush()
        while process.poll() is None and time.monotonic() < deadline and not self._stop.wait(_TICK_SECONDS):
            pass

    def _spawn(self, output: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", "shared.chain"]
        return subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command, env=self._environ, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.DEVNULL
        )


def _word(output: bytes) -> Word:
    try:
        said = json.loads(output)
        registry = None if said["digests"] is None else Registry(frozenset(said["digests"]))
        return Word(registry, str(said["line"]))
    except (ValueError, KeyError, TypeError):
        return Word(None, "the consultation did not come to its end")
