"""The settings as every process would read them, and the files that hold secrets."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from launcher.doctor.contradictions import find_contradictions
from launcher.doctor.judges.settings import (
    SecretFile,
    ServiceSettings,
    judge_contradictions,
    judge_names,
    judge_secret_files,
    judge_service,
)
from launcher.doctor.subject import Subject
from launcher.doctor.verdict import Verdict
from launcher.programs import ask_program
from shared.acceptance import load_init_settings
from shared.acceptance.settings import read_env_file
from shared.errors import R3mesError
from shared.settings import KNOWN_NAMES, SECRET_NAMES, CommonSettings, check_names, load_settings, resolve_secrets

SERVICES = ("downloader", "verifier", "miner")
SECONDS = 20.0
_PROJECT = Path(__file__).resolve().parents[3]
_BESIDE_COMPOSE = ("secrets/tls/gateway.pem", "secrets/api/keys", "secrets/downloader/hf_token")
_OTHERS_MAY_PASS = 0o001
# A process of its own: a service's settings are its own, and importing them may meet a library that crashes.
_PROGRAM = """
import importlib, json, sys
from shared.errors import R3mesError
from shared.settings import load_settings
found = {}
for name in sys.argv[1:]:
    try:
        module = importlib.import_module(f"services.{name}.settings")
    except ImportError:
        continue
    try:
        load_settings(getattr(module, f"{name.capitalize()}Settings"))
    except R3mesError as error:
        found[name] = [error.message, error.next_step]
    else:
        found[name] = ["", ""]
print(json.dumps(found))
"""


def check_settings(subject: Subject) -> list[Verdict]:
    """Read names and values as a start does, and let each service that is here read its own."""
    errors = _common_errors(subject)
    where = "the environment" + (" and .env" if subject.env_file else "")
    count = sum(name in KNOWN_NAMES for name in subject.environ)
    verdicts = judge_names(errors, count, where)
    if errors or not count:
        return verdicts  # each service would say the same
    return verdicts + [judge_service(each) for each in _service_settings(subject) if each.message]


def check_contradictions(subject: Subject) -> list[Verdict]:
    """Look for settings that cannot both be meant."""
    return judge_contradictions(
        find_contradictions(subject.environ, subject.pins, in_compose=subject.env_file is not None)
    )


def check_secret_files(subject: Subject) -> list[Verdict]:
    """Look at who may read each file of secrets."""
    return judge_secret_files(list(_secret_files(subject)))


def _common_errors(subject: Subject) -> list[R3mesError]:
    environ = subject.environ
    readings: list[Callable[[], object]] = [
        lambda: check_names(environ),
        lambda: read_env_file(subject.env_file) if subject.env_file else None,
        lambda: resolve_secrets(environ),
        lambda: load_settings(
            CommonSettings, {n: v for n, v in environ.items() if n.removesuffix("_FILE") not in SECRET_NAMES}
        ),
        lambda: load_init_settings(environ, project=subject.project),
    ]
    if subject.in_container:
        del readings[2]  # others' secrets need not be mounted here
    errors: dict[str, R3mesError] = {}
    for read in readings:
        try:
            read()
        except R3mesError as error:
            errors.setdefault(error.message.partition(" in ")[0], error)
    return list(errors.values())


def _service_settings(subject: Subject) -> list[ServiceSettings]:
    """Return what each service says that is installed here; where their libraries fail, another check says so."""
    said = ask_program(
        [sys.executable, "-P", "-c", _PROGRAM, *SERVICES],
        seconds=SECONDS - 1,
        environ={**os.environ, **subject.environ, "PYTHONPATH": str(_PROJECT)},
    )
    try:
        found: dict[str, list[str]] = json.loads(said.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return []
    return [ServiceSettings(name, message, next_step) for name, (message, next_step) in found.items()]


def _secret_files(subject: Subject) -> Iterator[SecretFile]:
    environ = subject.environ
    for name in sorted(SECRET_NAMES):
        if path := environ.get(f"{name}_FILE", "").strip():
            yield _look_at(f"{name}_FILE", subject.project / path)
    if subject.env_file is not None and any(name in _env_names(subject.env_file) for name in SECRET_NAMES):
        yield _look_at(".env", subject.env_file)
    if (subject.project / "docker-compose.yml").exists():
        named = {subject.project / environ.get(f"{name}_FILE", "") for name in SECRET_NAMES}
        for relative in _BESIDE_COMPOSE:
            beside = subject.project / relative
            if beside.exists() and beside not in named:
                yield _look_at(relative, beside)


def _env_names(path: Path) -> frozenset[str]:
    try:
        return frozenset(read_env_file(path))
    except R3mesError:
        return SECRET_NAMES  # unreadable lines: it may hold any


def _look_at(name: str, path: Path) -> SecretFile:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if not os.access(path, os.R_OK):
            return SecretFile(name, str(path), None, error="this user may not read it")
    except OSError as error:
        return SecretFile(name, str(path), None, error=error.strerror or str(error))
    above = path.resolve().parents
    return SecretFile(name, str(path), mode, is_in_reach=all(each.stat().st_mode & _OTHERS_MAY_PASS for each in above))
