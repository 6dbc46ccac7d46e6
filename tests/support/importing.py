"""`r3mes import` as a process over a store of the test's own, and what a person's file must still be afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from shared.acceptance import load_init_settings, start_store
from shared.store.layout import StoreLayout
from shared.store.verified import has_right_receipt
from tests.support.downloader_process import Downloader, model, sha256
from tests.support.downloader_stand import DIGEST

R3MES = [sys.executable, "-m", "launcher"]


def host(folder: Path, *models: bytes | dict[str, object]) -> Downloader:
    """Return a host that pins these models, on which no service runs unless the test starts it."""
    folder.mkdir(exist_ok=True)
    return Downloader(folder / "home", *(model(each) if isinstance(each, bytes) else each for each in models))


def run_import(on: Downloader, *arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `r3mes import` to its end, with pipes for a terminal."""
    return run_r3mes(on, "import", *arguments, **environ)


def run_r3mes(on: Downloader, *arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `r3mes` to its end, with pipes for a terminal."""
    return subprocess.run(
        [*R3MES, *map(str, arguments)],
        cwd=on.home,
        env={**on.environ, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def state_of(file: Path) -> tuple[bytes, int, int, int]:
    """Return all that an import must not change: bytes, inode, mode, time of the last change of bytes."""
    status = file.stat()
    return file.read_bytes(), status.st_ino, status.st_mode, status.st_mtime_ns


def incoming_names(layout: StoreLayout, digest: str) -> list[str]:
    """Return what lies in incoming for a digest."""
    directory = layout.incoming_dir(digest)
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


def is_verified(on: Downloader, digest: str = DIGEST, file_name: str = "tiny.gguf") -> bool:
    """Tell whether the file is there, with its digest and a right receipt."""
    path = on.layout.verified_file(digest, file_name)
    return has_right_receipt(on.layout, digest, file_name) is not None and sha256(path.read_bytes()) == digest


def accept(on: Downloader) -> None:
    """Do what the first process to start on this host does."""
    start_store(*load_init_settings(on.environ, project=on.home))
