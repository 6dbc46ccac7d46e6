"""Which models of the genesis a person means: by name, by digest, or by the beginning of one. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Protocol, TypeVar

from shared.errors import UsageError

LEAST_PREFIX = 8
_HEX = re.compile(rf"[0-9a-f]{{{LEAST_PREFIX},64}}")


class Named(Protocol):
    """A model as the genesis or a downloader tells of it."""

    @property
    def model_name(self) -> str:
        """The name in the genesis."""

    @property
    def sha256(self) -> str:
        """The pinned digest, 64 lower-case hex digits."""


NamedT = TypeVar("NamedT", bound=Named)


def choose(wanted: Sequence[str], known: Sequence[NamedT]) -> tuple[NamedT, ...]:
    """Return the wanted models, each once, in the order of the genesis; all of them when nothing is named.

    Raises UsageError for what is none of them, and for a beginning that several digests have.
    """
    if not wanted:
        return tuple(known)
    chosen = {find(each, known).sha256 for each in wanted}
    return tuple(each for each in known if each.sha256 in chosen)


def find(wanted: str, known: Sequence[NamedT]) -> NamedT:
    """Return the one model that is meant; a name goes before a digest. Raises UsageError."""
    for same in (wanted.__eq__, lambda name: name.casefold() == wanted.casefold()):
        for each in known:
            if same(each.model_name):
                return each
    folded = wanted.lower()
    found = [each for each in known if each.sha256.startswith(folded)] if _HEX.fullmatch(folded) else []
    if len(found) == 1:
        return found[0]
    if found:
        meant = ", ".join(each.model_name for each in found)
        raise UsageError(f"{wanted} is the beginning of several digests: {meant}", next_step="give more of it")
    names = [each.model_name for each in known]
    near = difflib.get_close_matches(wanted, names, n=1)
    raise UsageError(
        f"the genesis has no model {wanted!r}",
        next_step=f"did you mean {near[0]}?" if near else f"it has: {', '.join(names) or 'none'}",
    )
