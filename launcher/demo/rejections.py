"""The verifier's records of deleted bytes, as far as this run of the demo is concerned."""

from __future__ import annotations

from shared.store.layout import StoreLayout
from shared.store.records import RejectedRecord


class Rejections:
    """Records of one digest that were not there when this object was made."""

    def __init__(self, layout: StoreLayout, digest: str) -> None:
        self._layout = layout
        self._digest = digest
        self._known = self._names()

    def new(self) -> list[RejectedRecord]:
        """Return the records that came since the last call, in the order of their names."""
        names = self._names() - self._known
        records = {name: RejectedRecord.read(self._layout.rejected / name) for name in sorted(names)}
        self._known |= {name for name, record in records.items() if record is not None}
        return [record for record in records.values() if record is not None]

    def _names(self) -> set[str]:
        try:
            return {path.name for path in self._layout.rejected.glob(f"{self._digest}-*.json")}
        except OSError:
            return set()
