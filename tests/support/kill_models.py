"""The models of a stand: once verified they are replaced by a new genesis or removed by hand, so that work goes on."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from shared.acceptance.trust_state import trust_lock
from shared.store.layout import StoreLayout
from shared.store.records import RejectedRecord
from tests.support.kill_moments import Moment, moments_of
from tests.support.model_supply import Model, ModelSupply
from tests.support.store_watch import StoreWatch
from tests.support.verifier_store import Store

REMOVED_BY_HAND = 0.2
UNWANTED_ON_ITS_WAY = 0.03
_TEMPORARY = re.compile(r"\..+\.(json\.[0-9a-f]{16}|link)|\.claimed-.*")


class Models:
    """`accept` once, then `renew` as often as wanted; `watch` knows of each change before it happens."""

    def __init__(self, layout: StoreLayout, watch: StoreWatch, supply: ModelSupply, chance: random.Random) -> None:
        self.layout = layout
        self.watch = watch
        self.supply = supply
        self.pinned: list[Model] = []
        self.replaced = self.removed_by_hand = self.unwanted = self.geneses = 0
        self._chance = chance
        self._cap = 0

    def accept(self, slots: int, cap_bytes: int) -> None:
        """Make the store with a genesis of so many models, of at most so many bytes together at any time."""
        self._cap = cap_bytes
        for slot in range(slots):
            self.pinned.append(self._draw(slot))
        Store.make(self.layout.root, *(model.entry() for model in self.pinned))
        for model in self.pinned:
            self.watch.track(model.digest, model.size)

    @property
    def digests(self) -> list[str]:
        return [model.digest for model in self.pinned]

    def are_all_verified(self) -> bool:
        return all(self.watch.is_verified(digest) for digest in self.digests)

    def renew(self) -> None:
        """Let verified models give way: most to new ones, some to the same ones once more."""
        done = [model for model in self.pinned if self.watch.is_verified(model.digest)]
        chosen = [model for model in done if self._chance.random() < REMOVED_BY_HAND]
        leaving = [model for model in done if model not in chosen]
        # While the verifier has still to remove incoming, it may do so after the verified file has gone.
        again = [model for model in chosen if moments_of(self.layout, [model.digest]) == {Moment.IDLE}]
        self.replaced += len(leaving)
        left = [model for model in self.pinned if model not in done]
        if left and self._chance.random() < UNWANTED_ON_ITS_WAY:
            leaving.append(self._chance.choice(left))
            self.unwanted += 1
        for model in (*again, *leaving):
            self.watch.forget(model.digest)
        if leaving:
            self._replace(leaving)
        for model in again:
            shutil.rmtree(self.layout.verified_dir(model.digest), ignore_errors=True)
            self.removed_by_hand += 1
            self.watch.track(model.digest, model.size)
        self.remove_what_left()

    def leftovers(self) -> list[str]:
        """Return what lies in the store beside verified models, their receipts, and the downloader's memory of them.

        Raises FileNotFoundError when a directory goes meanwhile.
        """
        root = self.layout.root
        left = [str(path.relative_to(root)) for path in root.rglob("*") if _TEMPORARY.fullmatch(path.name)]
        left += [f".partial/{path.name}" for path in self.layout.partial.iterdir()]
        for directory in self.layout.incoming.iterdir():
            if directory.name not in self.digests:
                left.append(f"incoming/{directory.name}")
            left += [f"{directory.name}/{path.name}" for path in directory.iterdir() if path.name != "control.json"]
        wanted = {f"{m.digest}/{name}" for m in self.pinned for name in (m.file_name, "receipt.json")}
        found = {f"{path.parent.name}/{path.name}" for path in self.layout.verified.glob("[!.]*/*")}
        return left + sorted(wanted ^ found)

    def wrong_records(self) -> Iterator[str]:
        """Yield every record that should not be: right bytes refused, bytes lost, or one lie told twice."""
        for path in sorted(self.layout.rejected.iterdir()):
            record = RejectedRecord.read(path)
            if record is None or record.reason != "mismatch" or not path.name.endswith("-1.json"):
                yield f"{path.name}: {record}"
            elif record.sha256 not in self.supply.liars:
                yield f"right bytes were refused: {record}"

    def _replace(self, leaving: list[Model]) -> None:
        for model in leaving:
            self.pinned.remove(model)
            self.supply.retire(model)
        new = []
        for model in leaving:
            new.append(self._draw(model.slot))
            self.pinned.append(new[-1])
        self._chance.shuffle(self.pinned)  # the order in which they are fetched
        with trust_lock(self.layout):
            Store(self.layout).accept(*(model.entry() for model in self.pinned))
        self.geneses += 1
        for model in new:
            self.watch.track(model.digest, model.size)

    def remove_what_left(self) -> None:
        """Remove verified models that no genesis pins, as an operator does to whom they are of no use."""
        for directory in self.layout.verified.iterdir():
            if directory.name != self.layout.partial.name and directory.name not in self.digests:
                shutil.rmtree(directory, ignore_errors=True)

    def _draw(self, slot: int) -> Model:
        room = self._cap - sum(model.size for model in self.pinned)
        return self.supply.draw(slot, room, lambda digest: self.layout.rejected_file(digest, 1).exists())


def occupied_bytes(root: Path) -> int:
    """Return what the files under `root` occupy on the disk."""
    total = 0
    for directory, _, names in os.walk(root):
        for name in names:
            with suppress(OSError):  # gone meanwhile
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512  # noqa: PTH118 - walk gives text
    return total
