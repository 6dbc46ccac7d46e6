"""What a start does with the genesis: a pure decision over digests of the operator's file and of what is in `trust/`.

| operator's file            | trust/                                  | a start                             |
|----------------------------|-----------------------------------------|-------------------------------------|
| there                      | empty, and the store is new             | accepts it                          |
| absent                     | empty                                   | refuses: nothing says what to run   |
| there                      | empty, though the store has been in use | refuses until `accept`              |
| absent, or the accepted    | a pair that agrees                      | goes on with what was accepted      |
| the staged one             | a pair that agrees                      | goes on with what was accepted      |
| any other                  | a pair that agrees                      | refuses, shows the difference       |
| `genesis.json`'s bytes     | a pair that disagrees                   | writes `accepted.json` anew         |
| any other, or absent       | a pair that disagrees                   | refuses until `accept`              |
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class StartAction(StrEnum):
    """What a start does; the `REFUSE_*` ones write nothing and exit 78."""

    ACCEPT = "accept"
    GO_ON = "go_on"
    GO_ON_STAGED = "go_on_staged"
    REPAIR = "repair"
    REFUSE_NOTHING = "refuse_nothing"
    REFUSE_REMOVED = "refuse_removed"
    REFUSE_CHANGED = "refuse_changed"
    REFUSE_DISAGREE = "refuse_disagree"

    @property
    def writes(self) -> bool:
        """Whether `trust/` is written."""
        return self in {StartAction.ACCEPT, StartAction.REPAIR}


@dataclass(frozen=True, slots=True)
class TrustDigests:
    """What lies in `trust/`, as SHA-256 digests in hex.

    `genesis` is over the bytes of `genesis.json`, `accepted` is what `accepted.json` says, `staged` is over
    `next.json`; None: absent or unreadable. `empty`: neither of the pair's names exists. `store_in_use`: `store.json`,
    which a first acceptance writes last, is there.
    """

    genesis: str | None
    accepted: str | None
    staged: str | None
    empty: bool
    store_in_use: bool

    @property
    def agree(self) -> bool:
        """Whether the pair is there and whole."""
        return self.genesis is not None and self.genesis == self.accepted


def decide_start(operator: str | None, trust: TrustDigests) -> StartAction:
    """Decide, from the digest of the operator's file (None: no such file) and what lies in `trust/`."""
    if trust.agree:
        return _decide_accepted(operator, trust)
    if trust.empty:
        return _decide_empty(operator, trust)
    if operator is not None and operator == trust.genesis:
        return StartAction.REPAIR
    return StartAction.REFUSE_DISAGREE


def _decide_accepted(operator: str | None, trust: TrustDigests) -> StartAction:
    if operator in {None, trust.accepted}:
        return StartAction.GO_ON
    return StartAction.GO_ON_STAGED if operator == trust.staged else StartAction.REFUSE_CHANGED


def _decide_empty(operator: str | None, trust: TrustDigests) -> StartAction:
    if trust.store_in_use:
        return StartAction.REFUSE_REMOVED
    return StartAction.REFUSE_NOTHING if operator is None else StartAction.ACCEPT
