"""`r3mes demo`: everything is started here, kept running by the main thread, and ended here.

Order: settings and the model file → lock → Redis → origin → acceptance → services → a loop that keeps them running
while the story is told in a second thread → the end, in the reverse order. The main thread starts every process, since
the kernel ties a child to the thread that started it.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from launcher.answer import Question
from launcher.demo.disk import writing_below
from launcher.demo.environment import Wiring, common_environment, service_environment
from launcher.demo.lock import demo_lock
from launcher.demo.logs import last_words
from launcher.demo.options import DemoOptions
from launcher.demo.places import Places, demo_places, find_genesis, find_model_file
from launcher.demo.scene import CancelledError, Scene
from launcher.demo.story import Story
from launcher.demo.supervisor import ServiceEndedError, ServiceSpec, Supervisor
from launcher.display import Display, choose_display, short_path
from launcher.endpoints import DEFAULT_PORTS, ClientSettings, Role, endpoints_file, write_endpoints
from launcher.interrupts import Interrupts
from launcher.origin import Origin
from launcher.ports import claimed_ports
from launcher.redis_server import RedisServer
from launcher.working_folder import working_folder
from shared.acceptance import StartOutcome, load_init_settings, start_store
from shared.errors import ConfigurationError, ExitCode, StoreError
from shared.genesis import Genesis, ModelPin
from shared.settings import load_settings

BYTES_PER_SECOND = 32 * 1024 * 1024  # slow enough to be watched
POLL_SECONDS = 0.1
ROLES: tuple[Role, ...] = ("downloader", "verifier", "miner")


def run_demo(options: DemoOptions, environ: Mapping[str, str] | None = None) -> int:
    """Run the demo and return its exit code; raises R3mesError, with everything ended already."""
    user = {name: value for name, value in (os.environ if environ is None else environ).items() if value.strip()}
    settings = load_settings(ClientSettings, user)
    places = demo_places(settings.store_root, tamper=options.tamper)
    _refuse_file_as_store(places.models)
    model_file = find_model_file()
    display = choose_display()
    with Interrupts() as interrupts, ExitStack() as stack:
        stack.enter_context(demo_lock(places.lock))
        demo = _Demo(options, places, display, stack)
        try:
            with writing_below(places.directory):
                demo.start(user, model_file, settings.api_key)
            return demo.keep_running(interrupts)
        except ServiceEndedError as error:
            display.say(last_words(error.spec.log_file))
            display.say(f"error: {error.diagnostics()}")
            return error.returncode
        finally:
            display.pause()


class _Demo:
    """What runs, each part ended by `stack` in the reverse order of its start."""

    def __init__(self, options: DemoOptions, places: Places, display: Display, stack: ExitStack) -> None:
        self._options = options
        self._places = places
        self._display = display
        self._stack = stack
        self._redis = RedisServer(places.redis)

    def start(self, user: Mapping[str, str], model_file: Path, api_key: str | None) -> None:
        """Start everything; raises R3mesError."""
        _prepare_directories(self._places, empty_store=self._options.tamper)
        self._tell_where()
        self._stack.enter_context(self._redis)
        origin = self._stack.enter_context(self._origin(model_file))
        wiring = Wiring(
            models=self._places.models,
            genesis=find_genesis(user, working_folder()),
            origin_url=origin.url,
            ports=self._stack.enter_context(claimed_ports(DEFAULT_PORTS)),
            redis_url_file=self._redis.url_file,
            tamper=self._options.tamper,
        )
        common = common_environment(user, wiring)
        outcome = accept(common)
        if outcome.candidate is None:
            self._display.say(f"no genesis file ({wiring.genesis or 'none set'}): the accepted one goes on")
        pin = find_pin(outcome.genesis, origin.content.sha256, model_file)
        origin.serve_as(Path(urlsplit(pin.download_source).path).name)
        question = Question(self._options.prompt, pin.model_name, self._options.max_tokens, temperature=0.0)
        scene = Scene(pin, origin.content.size, self._places, wiring, question, api_key, lambda: origin.bytes_served)
        self._start_services(scene, common)
        self._story = _StoryThread(scene, self._display)
        self._stack.callback(self._story.cancel)
        self._story.start()

    def keep_running(self, interrupts: Interrupts) -> int:
        """Keep everything running until the end; return the exit code."""
        is_told = False
        while not interrupts.seen:
            self._supervisor.poll()
            if not self._redis.running:
                self._display.say("Redis ended; it is started again")
                self._redis.start()
            if self._story.has_ended() and not is_told:
                is_told = True
                if self._options.once:
                    return ExitCode.OK
                self._display.say('serving until Ctrl-C; in another terminal: r3mes ask "..."')
        self._display.pause()
        self._display.say("stopping")
        return ExitCode.OK if is_told else ExitCode.INTERRUPTED

    def _origin(self, model_file: Path) -> Origin:
        pace = BYTES_PER_SECOND
        self._display.say(
            f"a loopback origin that behaves like Hugging Face serves {model_file.name}, "
            f"slowed to {pace // 1024**2} MiB/s so that it can be watched"
            + ("; it flips one bit" if self._options.tamper else "")
        )
        return Origin(model_file, tamper=self._options.tamper, bytes_per_second=pace)

    def _start_services(self, scene: Scene, common: Mapping[str, str]) -> None:
        self._display.say(
            "starting Redis, downloader, verifier and miner; ports "
            + ", ".join(str(port) for port in scene.wiring.ports.values())
        )
        specs = [
            ServiceSpec(
                name=role,
                command=[sys.executable, "-P", "-m", f"services.{role}"],
                environment=service_environment(common, scene.wiring, role, scene.pin.model_name),
                log_file=self._places.logs / f"{role}.log",
            )
            for role in ROLES
        ]
        self._supervisor = Supervisor(specs, self._display.say)
        self._stack.callback(self._supervisor.stop)
        self._supervisor.start()
        write_endpoints(self._places.directory, {role: scene.wiring.url(role) for role in ROLES})
        self._stack.callback(endpoints_file(self._places.directory).unlink, missing_ok=True)

    def _tell_where(self) -> None:
        self._display.say(f"store: {short_path(self._places.models)}   logs: {short_path(self._places.logs)}")
        if self._options.tamper:
            self._display.say("this store belongs to the tampered demo alone and was emptied")


def accept(environ: Mapping[str, str]) -> StartOutcome:
    """Do what the first service to start does on a host; raises ConfigurationError."""
    settings, values = load_init_settings(environ, project=working_folder())
    return start_store(settings, values, judge_unchanged=False)


def find_pin(genesis: Genesis, sha256: str, model_file: Path) -> ModelPin:
    """Return the pin of the file that the origin serves; raises ConfigurationError when the genesis has none."""
    if pin := genesis.by_digest(sha256):
        return pin
    names = ", ".join(pin.model_name for pin in genesis.models)
    raise ConfigurationError(
        f"the accepted genesis pins {names}; the demo can serve only {model_file.name} (sha256 {sha256})",
        next_step="unset R3MES_GENESIS and use another R3MES_MODELS_DIR, or start the services themselves",
    )


def _refuse_file_as_store(models: Path) -> None:
    """Before a lock or a log is written beside it; raises StoreError."""
    if os.path.lexists(models) and not os.path.isdir(models):  # noqa: PTH112 - no error where it is barred
        raise StoreError(f"the store {models} is not a directory", next_step="set R3MES_MODELS_DIR to a directory")


def _prepare_directories(places: Places, *, empty_store: bool) -> None:
    if empty_store:
        _remove_tree(places.models)
    for directory in (places.logs, places.redis):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)


def _remove_tree(path: Path) -> None:
    if path.is_symlink():
        raise StoreError(f"{path} is a link; the tampered demo empties only a directory of its own")
    if path.exists():
        shutil.rmtree(path)


class _StoryThread:
    """The story in a thread of its own; its error is raised where the main thread asks for it."""

    def __init__(self, scene: Scene, display: Display) -> None:
        self._cancelled = threading.Event()
        self._story = Story(scene, display, self._cancelled)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._tell, name="story", daemon=True)
        self.start = self._thread.start

    def has_ended(self) -> bool:
        """Wait a moment; tell whether it is over, raising what ended it."""
        if self._thread.is_alive():
            self._thread.join(POLL_SECONDS)
        else:
            time.sleep(POLL_SECONDS)
        if self._error is not None:
            raise self._error
        return not self._thread.is_alive()

    def cancel(self) -> None:
        """Let it end soon; what it waits for ends with the services."""
        self._cancelled.set()

    def _tell(self) -> None:
        try:
            self._story.tell()
        except CancelledError:
            return
        except BaseException as error:  # noqa: BLE001  the outermost of its thread: the main thread raises it again
            self._error = error
