"""Low-space mode under a power cut at every change of the disk: an ext4 image, copied at each, mounted, and judged.

The copy of the backing file has what the file system had written by then, and nothing of what was only in memory.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.verifier.run_once import Outcome, verify_once
from shared.store.layout import StoreLayout
from tests.support.crash_child import context, photograph_verification
from tests.support.low_space import assert_no_byte_is_lost
from tests.support.slow_download import Download
from tests.support.verifier_store import Store, entry, sha256_of

CONTENT = os.urandom(180_000)
DIGEST = sha256_of(CONTENT)
IMAGE_BYTES = 24 * 1024 * 1024
CHILD_SECONDS = 120.0


@contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


def can_mount(directory: Path) -> bool:
    """Whether this user may mount images here; makes an empty one to find out."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        return False
    try:
        make_image(directory / "probe.img")
        with mounted(directory / "probe.img", directory / "probe"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def make_image(image: Path) -> None:
    with image.open("xb") as file:
        file.truncate(IMAGE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)


def images_of_a_verification(tmp_path: Path, *, without_fsync: bool) -> list[Path]:
    image = tmp_path / "disk.img"
    make_image(image)
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    with mounted(image, tmp_path / "disk") as disk:
        store = Store.make(disk / "models", entry(CONTENT))
        Download(store, CONTENT, mode="low-space").complete()
        os.sync()
        arguments = (store.layout.root, DIGEST, image, photographs, without_fsync)
        child = context.Process(target=photograph_verification, args=arguments)
        child.start()
        child.join(CHILD_SECONDS)
        assert child.exitcode == 0
    return sorted(photographs.iterdir())


def count_bad(tmp_path: Path, images: list[Path], check: Callable[[Store], None]) -> int:
    bad = 0
    for image in images:
        with mounted(image, tmp_path / "after") as disk:
            try:
                check(Store(StoreLayout(disk / "models")))
            except AssertionError:
                bad += 1
    return bad


def check_and_finish(store: Store) -> None:
    """I1 and I2 as the disk came up, and after the next turn."""
    assert store.wrong_verified_files() == []
    assert_no_byte_is_lost(store, CONTENT, len(CONTENT))
    assert verify_once(store.layout, DIGEST) in {Outcome.PROMOTED, Outcome.ALREADY_VERIFIED}
    assert store.layout.verified_file(DIGEST, "tiny.gguf").read_bytes() == CONTENT


@pytest.mark.slow
def test_a_power_cut_before_any_change_loses_nothing(tmp_path: Path) -> None:
    if not can_mount(tmp_path):
        pytest.skip("only root mounts images")
    images = images_of_a_verification(tmp_path, without_fsync=False)
    assert len(images) >= 40, "the changes of the disk were not seen"
    assert count_bad(tmp_path, images, check_and_finish) == 0


@pytest.mark.slow
def test_the_same_power_cuts_lose_bytes_when_the_partial_is_not_synced(tmp_path: Path) -> None:
    """The control: without the fsync of the partial, incoming gives up bytes that are nowhere else yet."""
    if not can_mount(tmp_path):
        pytest.skip("only root mounts images")
    images = images_of_a_verification(tmp_path, without_fsync=True)
    assert count_bad(tmp_path, images, check_and_finish) > 0
