"""An ext4 file system of a few hundred megabytes in a file, for a store that has room for one copy only."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ENVIRONMENT_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


@contextmanager
def loop_disk(path: Path, size: int) -> Iterator[Path | None]:
    """Mount a new ext4 of `size` bytes at `path`, which is made; yield None where that is not allowed here."""
    image = path.with_suffix(".img")
    with image.open("xb") as file:
        file.truncate(size)
    path.mkdir()
    if not _make(image) or not _run("mount", "-o", "loop", image, path):
        yield None
        return
    try:
        yield path
    finally:
        _run("umount", path) or _run("umount", "-l", path)
        image.unlink()


def _make(image: Path) -> bool:
    return _run("mkfs.ext4", "-q", "-F", "-m", "0", image)


def _run(program: str, *arguments: str | Path) -> bool:
    found = shutil.which(program) or shutil.which(program, path=ENVIRONMENT_PATH)
    return found is not None and subprocess.run([found, *arguments], capture_output=True, check=False).returncode == 0
