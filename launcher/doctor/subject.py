"""What the checks are about: settings, store and pins of this host, as far as they can be known without any of it.

Nothing here raises: what is wrong with the settings is for the checks to say, the others go on with the defaults.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar, cast

from launcher.doctor.blanking import Blanker, secrets_of
from shared.acceptance.settings import MAX_ENV_BYTES, read_env_file
from shared.errors import R3mesError
from shared.genesis import ModelPin, read_genesis_file
from shared.settings import SECRET_NAMES, CommonSettings, load_settings
from shared.store.atomic import read_hostile_bytes
from shared.store.layout import StoreLayout
from shared.store.trust import read_trust
from shared.store.verified import has_right_receipt

T = TypeVar("T")
COMPOSE_FILE = "docker-compose.yml"
DEFAULT_GENESIS = "genesis/genesis.json"


class Shelf:
    """What several checks ask for and one of them finds out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[object, threading.Lock] = {}
        self._found: dict[object, object] = {}

    def once(self, key: object, make: Callable[[], T]) -> T:
        """Return what `make` returned to the first who asked; raises what it raises, to each who asks."""
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._found:
                self._found[key] = make()
            return cast("T", self._found[key])


@dataclass(frozen=True)
class Subject:
    """`environ` are the non-empty settings, those of a Compose project's `.env` among them.

    `settings_error` is why they cannot be used; then `layout` is the default store's. `pins` are what is accepted, or
    else what the operator's file says; `outstanding` those of them that are not verified here.
    """

    environ: Mapping[str, str]
    project: Path
    layout: StoreLayout
    kind: Literal["host", "container"]
    pins: tuple[ModelPin, ...]
    outstanding: tuple[ModelPin, ...]
    env_file: Path | None
    settings_error: R3mesError | None
    offline: bool = False
    deep: bool = False
    on_bytes: Callable[[str, int, int], None] = lambda _stage, _done, _size: None
    stop: threading.Event = field(default_factory=threading.Event)
    shelf: Shelf = field(default_factory=Shelf)

    @property
    def in_container(self) -> bool:
        """Whether this runs in one of our images."""
        return self.kind == "container"

    @property
    def in_use(self) -> bool:
        """Whether a start has prepared this store."""
        return os.path.lexists(self.layout.store_json)

    def secret(self, name: str) -> str | None:
        """Return a secret from its name or its file; None where there is none or it cannot be read."""
        if value := self.environ.get(name, "").strip():
            return value
        path = self.environ.get(f"{name}_FILE", "").strip()
        return _read_text(self.project / path).strip() or None if path else None


def examine(environ: Mapping[str, str], project: Path, *, offline: bool = False, deep: bool = False) -> Subject:
    """Find out what the checks are about; never raises for what it finds."""
    given = {name: value for name, value in environ.items() if value.strip()}
    env_file = _env_file(given, project)
    error: R3mesError | None = None
    values = dict(given)
    try:
        values = {**(read_env_file(env_file) if env_file else {}), **given}
        settings = load_settings(CommonSettings, _without_files(values))
    except R3mesError as found:
        error, settings = found, _harmless(given)
    layout = StoreLayout(settings.store_root)
    pins = find_pins(layout, values, project)
    return Subject(
        environ=values,
        project=project,
        layout=layout,
        kind=settings.store_kind,
        pins=pins,
        outstanding=tuple(pin for pin in pins if has_right_receipt(layout, pin.sha256, pin.file_name) is None),
        env_file=env_file,
        settings_error=error,
        offline=offline,
        deep=deep,
    )


def blanker_of(environ: Mapping[str, str], project: Path) -> Blanker:
    """Return what blanks every secret of these settings, of their files, and of the project's `.env`."""
    # Line by line, since a file that a start would refuse holds secrets as well.
    written = [line.split("=", 1) for line in _read_text(project / ".env").splitlines() if "=" in line]
    values = {name.strip(): value.partition(" #")[0].strip().strip("'\"") for name, value in written} | dict(environ)
    paths = (values.get(f"{name}_FILE", "").strip() for name in SECRET_NAMES)
    return Blanker(secrets_of(values, [_read_text(project / path) for path in paths if path]), _home())


def find_pins(layout: StoreLayout, environ: Mapping[str, str], project: Path) -> tuple[ModelPin, ...]:
    """Return what is accepted, else what the operator's file pins; nothing where neither can be read."""
    try:
        return read_trust(layout).genesis.models
    except R3mesError:
        pass
    try:
        return read_genesis_file(project / _expanded(environ.get("R3MES_GENESIS", DEFAULT_GENESIS))).models
    except R3mesError:
        return ()


def _env_file(environ: Mapping[str, str], project: Path) -> Path | None:
    """Compose reads `.env` beside its file, and so does `init`; a service on a host reads none."""
    path = project / ".env"
    is_compose = environ.get("R3MES_STORE_KIND") == "container" or (project / COMPOSE_FILE).exists()
    return path if is_compose and os.path.lexists(path) else None


def _harmless(given: Mapping[str, str]) -> CommonSettings:
    """The two settings without which no store is found, each only where it makes sense by itself."""
    kept: dict[str, str] = {}
    for name in ("R3MES_MODELS_DIR", "R3MES_STORE_KIND"):
        try:
            load_settings(CommonSettings, {name: given.get(name, "")})
        except R3mesError:
            continue
        kept[name] = given.get(name, "")
    return load_settings(CommonSettings, kept)


def _without_files(values: Mapping[str, str]) -> dict[str, str]:
    """Secrets are looked at by checks of their own, and in a container others' need not be mounted."""
    return {name: value for name, value in values.items() if name.removesuffix("_FILE") not in SECRET_NAMES}


def _read_text(path: Path) -> str:
    content = read_hostile_bytes(os.path.realpath(path), limit=MAX_ENV_BYTES)
    return "" if content is None else content.decode("utf-8", errors="replace")


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def _home() -> str:
    return os.path.expanduser("~")  # noqa: PTH111 - never raises, and compared as text
