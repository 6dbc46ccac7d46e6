"""A person accepts: what changes is shown, and exactly what was shown is what is written.

Order: `plan_acceptance` (all checks, no write, no lock: a person may think for an hour), the caller shows
`plan.changes` and asks, then `accept(plan)` or `stage(plan)`, which take the lock, refuse if `trust/` is no longer what
the plan saw, and write the bytes that were shown, whatever the operator's file has become since; a large one that was
changed in place is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from shared.acceptance import trust_state
from shared.acceptance.candidate import Candidate, check_addresses, read_candidate
from shared.acceptance.chain_check import ask_chain
from shared.acceptance.settings import InitSettings
from shared.acceptance.store_root import (
    StoreKind,
    check_store,
    make_trust,
    mark_store,
    prepare_directories,
    translated,
)
from shared.acceptance.trust_state import TrustState, read_trust_state, trust_lock
from shared.chain import Consultation
from shared.errors import ConfigurationError, StoreError
from shared.genesis import ModelChange, difference
from shared.store.layout import StoreLayout


@dataclass(frozen=True, slots=True)
class AcceptancePlan:
    """What an acceptance would do: the checked file, what `trust/` holds, the kind of the store, the chain's word."""

    layout: StoreLayout
    kind: StoreKind
    candidate: Candidate
    trust: TrustState
    chain: Consultation | None

    @property
    def is_accepted(self) -> bool:
        """Whether exactly these bytes are accepted already."""
        return self.trust.digests.agree and self.trust.digests.accepted == self.candidate.sha256

    @property
    def has_new_signature(self) -> bool:
        """Whether these bytes are signed otherwise than was recorded when they were accepted."""
        return self.candidate.signature is not None and self.candidate.signature != self.trust.signature

    @property
    def is_staged(self) -> bool:
        """Whether exactly these bytes are staged already."""
        return self.trust.digests.staged == self.candidate.sha256

    @property
    def changes(self) -> tuple[ModelChange, ...]:
        """The models that differ from what is accepted (everything, where nothing is)."""
        if self.is_accepted:
            return ()
        agreed = self.trust.genesis if self.trust.digests.agree else None
        return difference(agreed, self.candidate.genesis)


def plan_acceptance(settings: InitSettings, environ: Mapping[str, str]) -> AcceptancePlan:
    """Check the operator's file and the store, then ask the chain; writes nothing.

    Raises GenesisError, StoreError or another ConfigurationError.
    """
    layout = StoreLayout(settings.store_root)
    check_store(layout, settings.store_kind)
    with ExitStack() as refused:
        candidate = read_candidate(settings)
        refused.callback(candidate.file.close)
        check_addresses(candidate.genesis, candidate.path, environ)
        chain = ask_chain(settings, environ, candidate.genesis)
        refused.pop_all()
    return AcceptancePlan(layout, settings.store_kind, candidate, read_trust_state(layout), chain)


def accept(plan: AcceptancePlan) -> None:
    """Make the planned genesis the accepted one, and end any staging.

    Raises ConfigurationError, and what was accepted stays, when something changed since the plan was made.
    """
    with _writing(plan):
        if not plan.is_accepted:
            trust_state.write_accepted(plan.layout, plan.candidate.file, plan.candidate.signature)
        elif plan.has_new_signature:
            trust_state.write_acceptance(plan.layout, plan.candidate.sha256, plan.candidate.signature)
        trust_state.remove_staged(plan.layout)


def check_stageable(plan: AcceptancePlan) -> None:
    """Raise StoreError where nothing is accepted yet, or this genesis is accepted already."""
    if plan.is_accepted:
        raise StoreError(f"{plan.candidate.path} is accepted already", next_step="there is nothing to stage")
    if not plan.trust.digests.agree:
        raise StoreError(
            f"no genesis is accepted in {plan.layout.trust}, so none can come next",
            next_step="accept this one, without --stage",
        )


def stage(plan: AcceptancePlan) -> None:
    """Write the planned genesis to `next.json`: its models are fetched and verified, and miners ignore it.

    Raises as `check_stageable` and as `accept` do.
    """
    check_stageable(plan)
    with _writing(plan):
        trust_state.write_staged(plan.layout, plan.candidate.file.chunks())


@contextmanager
def _writing(plan: AcceptancePlan) -> Iterator[None]:
    """Hold the lock, with what the plan saw still in place and the directories made."""
    make_trust(plan.layout)
    with trust_lock(plan.layout):
        check_store(plan.layout, plan.kind)
        if read_trust_state(plan.layout).digests != plan.trust.digests:
            raise ConfigurationError("another acceptance came in between", next_step="look again: run the command anew")
        prepare_directories(plan.layout, plan.kind)
        with translated(plan.layout):
            trust_state.sweep(plan.layout)
            yield
        mark_store(plan.layout, plan.kind)
