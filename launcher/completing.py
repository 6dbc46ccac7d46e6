"""What a TAB after `--model` or `pull` offers: the names of the models, read fast, and never an error.

What is accepted counts; where nothing is, as on a host whose store is a container's, the operator's file. A name comes
from outside and goes through a shell's `eval`, so only those of harmless letters are offered.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

# A plain form is at most 64 KiB; a chain's genesis may take seconds, and nobody waits so long for a TAB.
_MAX_BYTES = 1024 * 1024
_HARMLESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@/-]*")


def complete_model(incomplete: str) -> list[str]:
    """Return the models' names that begin like this, in the order of the genesis; none where they cannot be read."""
    store = Path(os.environ.get("R3MES_MODELS_DIR") or "~/.r3mes/models")
    operators = Path(os.environ.get("R3MES_GENESIS") or "genesis/genesis.json")
    accepted = [*_names(store / "trust" / "genesis.json"), *_names(store / "trust" / "next.json")]
    found = dict.fromkeys(accepted or _names(operators))
    return [name for name in found if name.startswith(incomplete) and _HARMLESS.fullmatch(name)]


def _names(path: Path) -> Iterator[str]:
    try:
        with open(path.expanduser(), "rb", opener=_without_waiting) as file:
            raw = file.read(_MAX_BYTES + 1)
        document = json.loads(raw) if len(raw) <= _MAX_BYTES else None
    except (OSError, ValueError, RecursionError, RuntimeError):  # the last: no such home
        return
    for config in _configs(document):
        name = _get(config, "model_name", "modelName")
        if isinstance(name, str):
            yield name


def _configs(document: object) -> Iterator[object]:
    """Yield the models of a genesis in any of its forms; this is a hint, which checks nothing."""
    yield _get(document, "model_config")
    yield from _list(_get(document, "models"))
    registry = _get(_get(_get(document, "app_state"), "remes"), "model_registry_list", "modelRegistryList")
    for entry in _list(registry):
        if _get(entry, "is_active", "isActive") is True:
            yield _get(entry, "config")


def _get(value: object, *names: str) -> object:
    if not isinstance(value, dict):
        return None
    return next((value[name] for name in names if name in value), None)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
