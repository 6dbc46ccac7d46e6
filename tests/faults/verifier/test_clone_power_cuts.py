"""A power cut at every change of the promote path when the copy is a clone: XFS and btrfs images, mounted and judged.

Nothing of the incoming data was synced by its writer: what is in an image was written because it was cloned and synced.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.verifier.run_once import Outcome, verify_once
from shared.store.layout import StoreLayout
from tests.support.clone_child import PROMOTED, photographs_of
from tests.support.programs import need
from tests.support.reflink_disk import SHARING, make_image, mounted
from tests.support.verifier_store import Store, entry, sha256_of

CONTENT = os.urandom(1_500_001)
DIGEST = sha256_of(CONTENT)


def images_of_a_verification(tmp_path: Path, kind: str, *, without_fsync: bool = False) -> Iterator[tuple[Path, bool]]:
    """Yield each image and whether the promotion had returned by then."""
    image, photographs = tmp_path / "disk.img", tmp_path / "photographs"
    make_image(image, kind)
    photographs.mkdir()
    with mounted(image, tmp_path / "disk") as disk:
        store = Store.make(disk / "models", entry(CONTENT))
        os.sync()
        store.put(DIGEST, CONTENT)
        images = photographs_of(store.layout.root, DIGEST, image, photographs, without_fsync=without_fsync)
    assert len(images) >= 12, "the changes of the disk were not seen"
    for found in images:
        yield found, PROMOTED in found.name
        found.unlink()


def judge(store: Store) -> str:
    """Return what a mounted image has under the verified name."""
    verified = store.layout.verified_file(DIGEST, "tiny.gguf")
    if not verified.exists():
        return "nothing"
    return "right" if verified.read_bytes() == CONTENT else "wrong"


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHARING)
def test_a_power_cut_leaves_no_wrong_clone_and_takes_none_that_was_promoted(tmp_path: Path, kind: str) -> None:
    need("mount", "cp")
    found: Counter[tuple[bool, str]] = Counter()
    for image, is_promoted in images_of_a_verification(tmp_path, kind):
        with mounted(image, tmp_path / "after") as disk:
            store = Store(StoreLayout(disk / "models"))
            found[is_promoted, judge(store)] += 1
            has_data = store.layout.data(DIGEST).exists() and store.layout.data(DIGEST).read_bytes() == CONTENT
            outcome = verify_once(store.layout, DIGEST)
            assert store.wrong_verified_files() == []
            if is_promoted:
                assert outcome is Outcome.ALREADY_VERIFIED
            elif has_data and store.layout.journal(DIGEST).exists():
                assert outcome in {Outcome.PROMOTED, Outcome.ALREADY_VERIFIED}
    assert set(found) <= {(False, "nothing"), (False, "right"), (True, "right")}, found
    assert found[False, "nothing"] > 0
    assert found[True, "right"] >= 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHARING)
def test_the_same_power_cuts_take_what_was_promoted_when_nothing_is_synced(tmp_path: Path, kind: str) -> None:
    """The control: without fsync the promotion returns before anything of it is on the disk."""
    lost = 0
    for image, is_promoted in images_of_a_verification(tmp_path, kind, without_fsync=True):
        with mounted(image, tmp_path / "after") as disk:
            lost += is_promoted and judge(Store(StoreLayout(disk / "models"))) != "right"
    assert lost > 0
