"""The stage on which misbehaviours are played: one Redis, one verifier, one store; a downloader of its own for each.

Order of calls: `Stage` once → for each `Fault`: `play` makes a `World` (a file, its pin, an origin that serves it as
Hugging Face does), lets the fault change it, runs a real downloader until the model is verified or has failed, and
holds what happened against what the fault says and against what holds for all: nothing wrong was promoted, no more
bytes left than promised, nobody was connected to who may not be.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
import requests

from shared.redis_rights import DOWNLOADER, VERIFIER
from shared.store.layout import StoreLayout
from tests.support.downloader_process import REPOSITORY, sha256
from tests.support.fast_downloader import CONNECTS
from tests.support.geneses import entry
from tests.support.origin_server import Script, ScriptedOrigin, in_turn, linked, ranged, redirect
from tests.support.redis_server import RedisServer
from tests.support.verifier_store import Store, hash_of_file
from tests.support.waiting import wait_until

KIB, MIB = 1024, 1024 * 1024
SIZE = MIB + 17
RANGE = 64 * KIB
CID = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"
SEND_BUFFER = 32 * KIB
# Only a person or a new genesis helps after these; any other failure names the time of the next attempt.
FINAL = frozenset({"hash_mismatch", "cancelled"})


@dataclass(frozen=True)
class Ending:
    """How a case ended."""

    state: str
    reason: str | None
    message: str
    source: str | None
    next_attempt_at: float | None
    seconds: float
    rejected: int


Check = Callable[["World", Ending], None]


@dataclass(frozen=True)
class Fault:
    """One misbehaviour and what is promised for it.

    `ends` is "verified" or the reason of the failure; several where the design leaves it open. `copies` bounds the
    bytes that may leave all origins, in sizes of the file, beside `slack` bytes; `seconds` bounds the time on a machine
    of which others take most.
    """

    name: str
    ends: str | tuple[str, ...]
    arrange: Callable[[World], object]
    says: str = ""
    copies: float = 2.0
    slack: int = 2 * MIB
    seconds: float = 40.0
    size: int = SIZE
    check: Check | None = None
    quick: bool = False
    marks: Sequence[pytest.MarkDecorator] = ()


def cases(*faults: Fault) -> pytest.MarkDecorator:
    """Make a test of each fault; those that are not quick are for `make test-faults`."""
    names = [fault.name for fault in faults]
    assert len(set(names)) == len(names), "a name stands twice"
    beside = (pytest.mark.faults, pytest.mark.slow)
    parameters = [
        pytest.param(fault, id=fault.name, marks=[*fault.marks, *(() if fault.quick else beside)]) for fault in faults
    ]
    return pytest.mark.parametrize("fault", parameters)


class World:
    """One file and who serves it; an arrangement changes what it is about."""

    def __init__(self, stage: Stage, name: str, size: int, places: ExitStack) -> None:
        self.home = stage.home
        self.store = stage.store
        self.data = os.urandom(size)
        self.digest = sha256(self.data)
        self.slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        self.file_name = f"{self.slug}.gguf"
        self.path = f"/org/{self.slug}/resolve/main/{self.file_name}"
        self.places = places
        self.origins: list[ScriptedOrigin] = []
        self.origin = self.another_origin()
        self.endpoint: str | None = None
        self.pin: dict[str, object] = {"size_bytes": size, "required_disk_space_gb": size / 10**9}
        self.environ: dict[str, str] = {}
        self.allowed: list[str] = []
        self.gateways: list[str] = []
        self.names: dict[str, list[list[str]]] = {}
        self.others: set[str] = set()
        self.victims: list[ScriptedOrigin] = []
        self.service = stage.downloader(self)
        self.hub(redirect("/cdn", linked(self.data)))
        self.cdn(ranged(self.data))

    def another_origin(self, **options: Any) -> ScriptedOrigin:  # noqa: ANN401 - what ScriptedOrigin takes
        """Start one more origin; what it sends counts, too."""
        origin = self.places.enter_context(ScriptedOrigin(send_buffer=SEND_BUFFER, **options))
        self.origins.append(origin)
        return origin

    def victim(self) -> ScriptedOrigin:
        """Start an origin that has the right bytes, under /x, and that nobody may even connect to."""
        victim = self.another_origin()
        victim.scripts["/x"] = ranged(self.data)
        self.victims.append(victim)
        return victim

    def may_connect(self) -> set[str]:
        """Return each `address port` that may be tried: the origins but the victims, and what `others` names."""
        return {f"127.0.0.1 {origin.port}" for origin in self.origins if origin not in self.victims} | self.others

    def hub(self, *scripts: Script) -> None:
        """Say how the first address answers, in turn; HEAD is the first request that it meets."""
        self.origin.scripts[self.path] = in_turn(*scripts)

    def cdn(self, *scripts: Script) -> None:
        """Say how the address behind the redirect answers, in turn."""
        self.origin.scripts["/cdn"] = in_turn(*scripts)

    def allow(self, origin: ScriptedOrigin) -> None:
        """Put an origin into R3MES_ALLOW_HTTP_SOURCES."""
        self.allowed.append(origin.host)

    def gateway(self, *scripts: Script) -> ScriptedOrigin:
        """Add an IPFS gateway, which the pin then names a CID for."""
        origin = self.another_origin()
        origin.scripts[f"/ipfs/{CID}"] = in_turn(*scripts)
        self.add_gateway(origin.url)
        return origin

    def add_gateway(self, url: str) -> None:
        self.gateways.append(url)
        self.pin["ipfs_fallback_hash"] = CID

    def entry(self) -> dict[str, object]:
        """Return the genesis entry."""
        return entry(
            **{
                "model_name": self.slug,
                "file_name": self.file_name,
                "download_source": f"https://huggingface.co{self.path}",
                "verification_sha256": self.digest,
                **self.pin,
            }
        )

    def settings(self) -> dict[str, str]:
        """Return what the downloader's environment has beyond the stage's own."""
        return {
            "HF_ENDPOINT": self.endpoint or self.origin.url,
            **({"R3MES_ALLOW_HTTP_SOURCES": ",".join(self.allowed)} if self.allowed else {}),
            **({"R3MES_IPFS_GATEWAYS": ",".join(self.gateways)} if self.gateways else {}),
            **({"FAULTS_NAMES": json.dumps(self.names)} if self.names else {}),
            **self.environ,
        }

    def sent(self) -> int:
        """Count the bytes that left all origins."""
        return sum(origin.sent() for origin in self.origins)

    def asked(self) -> int:
        """Count the requests that all origins got."""
        return sum(len(origin.requests) for origin in self.origins)


class FastDownloader:
    """One downloader out of the nursery."""

    def __init__(self, stage: Stage, world: World) -> None:
        self._stage = stage
        self._world = world
        self.log_file = stage.home / f"{world.slug[:80]}.log"
        self._pid = 0
        self._url = ""

    def start(self) -> Self:
        offset = len(self.log)
        environ = {**self._stage.environ, **self._world.settings()}
        self._pid = self._stage.fork({"environ": environ, "cwd": str(self._stage.home), "log": str(self.log_file)})
        started = wait_until(lambda: self.event("downloader started", offset), 60, "the downloader's start")
        self._url = f"http://127.0.0.1:{started['port']}"
        return self

    def status(self) -> dict[str, Any]:
        assert is_alive(self._pid), self.log[-3000:]
        answer = requests.get(f"{self._url}/api/v1/models/{self._world.digest}", timeout=10)
        answer.raise_for_status()
        return dict(answer.json())

    def ask(self, verb: str) -> None:
        requests.post(f"{self._url}/api/v1/models/{self._world.digest}/{verb}", timeout=10).raise_for_status()

    def wait_for_the_end(self, seconds: float) -> dict[str, Any]:
        """Wait until the model is verified, or has failed and the time of the next attempt is set."""

        def is_over(status: dict[str, Any]) -> bool:
            settled = status["next_attempt_at"] is not None or status["reason"] in FINAL
            return status["state"] == "verified" or (status["state"] == "failed" and settled)

        return self.wait_for(is_over, seconds, "verified, or failed with a reason")

    def wait_for(self, is_reached: Callable[[dict[str, Any]], bool], seconds: float, what: str) -> dict[str, Any]:
        """Wait until the status is as wanted; return it."""

        def reached() -> dict[str, Any]:
            status = self.status()
            assert is_reached(status), f"{status}\n{self.log[-3000:]}"
            return status

        return wait_until(reached, seconds, what)

    def restart(self) -> None:
        self.kill()
        self.start()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._pid:
            os.kill(self._pid, 9)
            wait_until(lambda: not is_alive(self._pid), 30, "the downloader's end")
            self._pid = 0

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def event(self, name: str, offset: int = 0) -> dict[str, Any] | None:
        for line in self.log[offset:].splitlines():
            if line.startswith("{") and line.endswith("}") and (document := json.loads(line))["event"] == name:
                return dict(document)
        return None


def is_alive(pid: int) -> bool:
    """Tell whether a process that its parent reaps at once is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@dataclass
class Stage:
    """Redis, verifier, store, and the nursery of the downloaders; `environ` is what the downloaders get."""

    home: Path
    redis: RedisServer
    store: Store = field(init=False)
    environ: dict[str, str] = field(init=False)
    _nursery: subprocess.Popen[bytes] = field(init=False)

    @property
    def layout(self) -> StoreLayout:
        return self.store.layout

    @contextmanager
    def open(self) -> Iterator[Self]:
        """Start what all cases share."""
        self.store = Store.make(self.home / "models", entry())
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "PYTHONPATH": str(REPOSITORY),
            "R3MES_MODELS_DIR": str(self.layout.root),
            "R3MES_GENESIS": str(self.home / "no-operator-file.json"),
            "R3MES_LISTEN": "127.0.0.1:0",
            "R3MES_REDIS_URL": self.redis.service_url(DOWNLOADER),
            "R3MES_RECONCILE_SECONDS": "0.5",
        }
        with ExitStack() as running:
            log = running.enter_context((self.home / "verifier.log").open("ab"))
            others = {**self.environ, "R3MES_REDIS_URL": self.redis.service_url(VERIFIER)}
            verifier = self._start("services.verifier", stderr=log, env=others)
            running.callback(_end, verifier)
            self._nursery = self._start(
                *("tests.support.fast_downloader", "--nursery"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            running.callback(_end, self._nursery)
            yield self
            assert verifier.poll() is None, "the verifier has ended"

    def _start(self, *module: str, **streams: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401 - what Popen takes
        options = {"env": self.environ, "cwd": self.home, **streams}
        return subprocess.Popen([sys.executable, "-m", *module], **options)

    def fork(self, wanted: Mapping[str, object]) -> int:
        """Let the nursery fork a downloader; return its pid."""
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(json.dumps(wanted).encode() + b"\n")
        self._nursery.stdin.flush()
        return int(self._nursery.stdout.readline())

    def downloader(self, world: World) -> FastDownloader:
        return FastDownloader(self, world)

    def play(self, fault: Fault) -> None:
        """Let a fault happen, and hold what came of it against what is promised."""
        with ExitStack() as places:
            world = World(self, fault.name, fault.size, places)
            fault.arrange(world)
            self.store.accept(world.entry())
            places.callback(self._clear, world)
            places.callback(world.service.kill)
            begun = time.monotonic()
            status = world.service.start().wait_for_the_end(fault.seconds)
            ending = Ending(
                *(status[name] for name in ("state", "reason", "message", "source", "next_attempt_at")),
                seconds=time.monotonic() - begun,
                rejected=len(list(self.layout.rejected.glob(f"{world.digest}-*.json"))),
            )
            self._judge(fault, world, ending)
            if fault.check is not None:
                fault.check(world, ending)
                self._judge_store(world, verified=world.service.status()["state"] == "verified")

    def _judge(self, fault: Fault, world: World, ending: Ending) -> None:
        told = f"{ending}\n{world.service.log[-3000:]}"
        promised = (fault.ends,) if isinstance(fault.ends, str) else fault.ends
        assert (ending.state if ending.state == "verified" else ending.reason) in promised, told
        # The reason's words may follow the reason: they are written when the source's turn has ended.
        world.service.wait_for(lambda status: fault.says in status["message"], 5, f"{fault.says!r} in the message")
        bound = int(fault.copies * fault.size) + fault.slack
        assert world.sent() <= bound, f"{world.sent()} bytes left, at most {bound} were promised\n{told}"
        self._judge_store(world, verified=ending.state == "verified")
        tried = set(re.findall(rf"^{CONNECTS} (\S+ \d+)$", world.service.log, re.MULTILINE))
        assert tried, "no connection was told of"
        wrong = tried - world.may_connect() - {f"127.0.0.1 {self.redis.port}"}
        assert not wrong, f"it tried to reach {wrong}"
        assert world.service.event("the downloader failed; a restart goes on from the disk") is None, told

    def _judge_store(self, world: World, *, verified: bool) -> None:
        """Nothing wrong is promoted: exactly the right bytes stand under the digest, or nothing."""
        assert self.store.wrong_verified_files() == []
        names = self.store.verified_names(world.digest)
        if verified:
            assert world.file_name in names
            path = self.layout.verified_file(world.digest, world.file_name)
            assert path.stat().st_size == len(world.data)
            assert hash_of_file(path) == world.digest
        else:
            assert names == []
        data = self.layout.data(world.digest)
        assert not data.exists() or data.stat().st_size <= max(len(world.data), 1), "more than the pinned size was kept"

    def _clear(self, world: World) -> None:
        """Leave the store as it was found."""
        for directory in (*self.layout.incoming.iterdir(), self.layout.verified_dir(world.digest)):
            shutil.rmtree(directory, ignore_errors=True)
        for path in self.layout.rejected.iterdir():
            path.unlink(missing_ok=True)
        (self.layout.root / world.file_name).unlink(missing_ok=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
