"""What a start does about the genesis: `init` in a container stack, and on a host whoever starts first.

Order: settings (the caller has read them) → `check_start`: kind of the store, the operator's file, the decision,
addresses, the chain's word → only then directories, the pair in `trust/`, `store.json`. All of it runs under
`trust/.lock`, but for the question to the chain, during which nobody else shall wait.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import structlog

from shared.acceptance import trust_state
from shared.acceptance.candidate import (
    Candidate,
    check_addresses,
    check_pinned_digest,
    find_candidate,
    read_candidate,
)
from shared.acceptance.chain_check import ask_chain
from shared.acceptance.decision import StartAction, decide_start
from shared.acceptance.genesis_file import GenesisFile
from shared.acceptance.settings import InitSettings, load_init_settings
from shared.acceptance.signature import check_recorded
from shared.acceptance.store_root import (
    StoreKind,
    check_store,
    make_trust,
    mark_store,
    prepare_directories,
    translated,
)
from shared.acceptance.trust_state import TrustState, read_trust_state, recorded_digest, trust_lock
from shared.chain import Consultation
from shared.errors import ConfigurationError, StoreError
from shared.genesis import Genesis, difference, missing_genesis
from shared.genesis.difference import describe
from shared.settings import CommonSettings
from shared.store.layout import StoreLayout

# An acceptance by hand can come between check and start; one after another, as fast as starts, cannot.
MOST_CHECKS = 3


@dataclass(frozen=True, slots=True)
class StartOutcome:
    """What was decided; `file` is what runs from now on, `candidate` the operator's file if there is one.

    `is_staged`: what runs from now on lies in `next.json` too. `chain` is what the endpoints of R3MES_CHAIN_RPC said,
    None where they were not asked.
    """

    layout: StoreLayout
    action: StartAction
    file: GenesisFile
    candidate: Candidate | None
    is_staged: bool
    chain: Consultation | None = None

    @property
    def sha256(self) -> str:
        """Digest, in hex, of the genesis that runs from now on."""
        return self.file.sha256

    @property
    def genesis(self) -> Genesis:
        """The genesis that runs from now on; raises GenesisError where nobody had to parse it yet."""
        return self.file.genesis


def start_host_store(settings: CommonSettings, environ: Mapping[str, str] | None = None) -> StoreLayout:
    """Do what the first service to start does on a host; in a container `init` has done it, and this does nothing.

    Raises ConfigurationError (GenesisError, StoreError), with nothing written, when the start must not go on.
    """
    layout = StoreLayout(settings.store_root)
    if settings.store_kind == "container":
        return layout
    found, values = load_init_settings(os.environ if environ is None else environ, project=Path.cwd())
    found = found.model_copy(update={"models_dir": settings.models_dir, "store_kind": settings.store_kind})
    # Verifier and miner never judge addresses: they may not know the downloader's settings. Nor do they ask the chain
    # about what was accepted: as Docker's restarts, this goes on from it, and the downloader asks while it runs.
    outcome = start_store(found, values, judge_unchanged=False)
    log = structlog.get_logger().bind(sha256=outcome.sha256, store=str(layout.root))
    match outcome.action:
        case StartAction.ACCEPT:
            log.info("genesis accepted", models=[pin.model_name for pin in outcome.genesis.models])
        case StartAction.REPAIR:
            log.warning("acceptance completed after an interrupted one")
        case StartAction.GO_ON_STAGED:
            log.info("the operator's genesis is staged; what was accepted goes on", next="r3mes genesis accept")
        case _ if outcome.candidate is None:
            log.info("no genesis file; what was accepted goes on", looked_for=str(found.genesis))
        case _:
            log.debug("genesis unchanged")
    return layout


def start_store(settings: InitSettings, environ: Mapping[str, str], *, judge_unchanged: bool = True) -> StartOutcome:
    """Check everything, then write what a start writes; safe to run again, changes only what differs.

    `judge_unchanged` says whether the addresses of a genesis that was accepted earlier are judged again, and the chain
    asked about it. Raises ConfigurationError (GenesisError, StoreError), with nothing written.
    """
    for _ in range(MOST_CHECKS):
        outcome = _start_as_checked(settings, environ, judge_unchanged=judge_unchanged)
        if outcome is not None:
            return outcome
    raise ConfigurationError("the genesis changed again and again while it was being checked", next_step="start again")


def _start_as_checked(
    settings: InitSettings, environ: Mapping[str, str], *, judge_unchanged: bool
) -> StartOutcome | None:
    """Return None, with nothing written, where another genesis was accepted while this one was being checked."""
    layout, kind = StoreLayout(settings.store_root), settings.store_kind
    with ExitStack() as refused:
        start = _Start(settings, environ, _operators_file(settings, refused), refused)
        checked: StartOutcome | None = None
        if settings.chain_rpc or not os.path.exists(layout.trust_lock):  # noqa: PTH110 - False, not an error, where barred
            # Without a lock nobody can be at work on this store yet: refuse before even the lock is made.
            checked = _check(start, judge_unchanged=judge_unchanged)
            make_trust(layout)
        with trust_lock(layout):
            outcome = _decided(start, judge_unchanged=judge_unchanged and checked is None)
            if checked is not None:
                if _is_changed(outcome, checked):
                    return None
                outcome = replace(outcome, file=checked.file, chain=checked.chain)  # that one may be parsed already
            prepare_directories(layout, kind)
            with translated(layout):
                trust_state.sweep(layout)
                _write(outcome)
            mark_store(layout, kind)
        refused.pop_all()
    return outcome


def check_start(settings: InitSettings, environ: Mapping[str, str], *, judge_unchanged: bool = True) -> StartOutcome:
    """Do the checks of a start alone; writes nothing. Raises as `start_store` does."""
    with ExitStack() as refused:
        start = _Start(settings, environ, _operators_file(settings, refused), refused)
        outcome = _check(start, judge_unchanged=judge_unchanged)
        refused.pop_all()
    return outcome


@dataclass(frozen=True, slots=True)
class _Start:
    """What a start is about; `refused` closes, when it is refused, the files that were opened for it."""

    settings: InitSettings
    environ: Mapping[str, str]
    candidate: Candidate | None
    refused: ExitStack


def _operators_file(settings: InitSettings, refused: ExitStack) -> Candidate | None:
    """Open and check it, once; the store's own kind comes first."""
    layout = StoreLayout(settings.store_root)
    check_store(layout, settings.store_kind)
    # In a container stack the project's folder is mounted: a file that is not there is a mistake.
    find = find_candidate if settings.store_kind == "host" else read_candidate
    candidate = find(settings, accepted=recorded_digest(layout))
    if candidate is not None:
        refused.callback(candidate.file.close)
    return candidate


def _check(start: _Start, *, judge_unchanged: bool) -> StartOutcome:
    layout = StoreLayout(start.settings.store_root)
    # Under the lock where there is one, so that nobody is seen half-way between the two writes.
    with trust_lock(layout) if os.path.exists(layout.trust_lock) else nullcontext():  # noqa: PTH110 - as above
        outcome = _decided(start, judge_unchanged=judge_unchanged)
    if outcome.action.writes or judge_unchanged:
        return replace(outcome, chain=ask_chain(start.settings, start.environ, outcome.genesis))
    return outcome


def _is_changed(outcome: StartOutcome, checked: StartOutcome) -> bool:
    """Tell whether what was checked, also by the chain, is another genesis or another deed than what is to be done."""
    return outcome.sha256 != checked.sha256 or (outcome.action.writes and not checked.action.writes)


def _decided(start: _Start, *, judge_unchanged: bool) -> StartOutcome:
    settings, candidate = start.settings, start.candidate
    layout = StoreLayout(settings.store_root)
    check_store(layout, settings.store_kind)
    state = read_trust_state(layout)
    if state.file is not None:
        start.refused.callback(state.file.close)
    action = decide_start(candidate.sha256 if candidate else None, state.digests)
    match action:
        case StartAction.ACCEPT | StartAction.REPAIR if candidate is not None:
            check_addresses(candidate.genesis, candidate.path, start.environ)
            file = candidate.file
        case StartAction.GO_ON | StartAction.GO_ON_STAGED if state.file is not None:
            file = state.file
            if candidate is None:
                check_pinned_digest(settings, file.sha256, layout.genesis)
                check_recorded(settings, state.signature, file)
            if judge_unchanged:
                _judge_unchanged(file, candidate, start.environ)
        case _:
            _refuse(settings, layout, action, state, candidate)
    return StartOutcome(layout, action, file, candidate, is_staged=state.digests.staged == file.sha256)


def _judge_unchanged(accepted: GenesisFile, candidate: Candidate | None, environ: Mapping[str, str]) -> None:
    """Parse what was accepted (an older version may have taken what this one refuses), and judge the addresses."""
    genesis = accepted.genesis
    if candidate is not None:
        is_same = candidate.sha256 == accepted.sha256
        check_addresses(genesis if is_same else candidate.genesis, candidate.path, environ)


def _refuse(
    settings: InitSettings,
    layout: StoreLayout,
    action: StartAction,
    state: TrustState,
    candidate: Candidate | None,
) -> NoReturn:
    accept = accept_command(settings.store_kind)
    if action is StartAction.REFUSE_CHANGED and candidate is not None:
        changes = describe(difference(state.genesis, candidate.genesis))
        raise ConfigurationError(
            f"{candidate.path} is not the genesis that was accepted; nothing was changed\n{changes}",
            next_step=f"`{accept}` accepts it; or put the accepted file back: {layout.genesis} holds it",
        )
    if action is StartAction.REFUSE_DISAGREE:
        raise StoreError(
            f"{layout.genesis} and {layout.accepted.name} disagree, and so nothing is accepted",
            next_step=f"look at R3MES_GENESIS ({settings.genesis}), then `{accept}`",
        )
    if action is StartAction.REFUSE_REMOVED:
        raise StoreError(
            f"this store was in use, and its accepted genesis is gone from {layout.trust}",
            next_step=f"look at R3MES_GENESIS ({settings.genesis}), then `{accept}`",
        )
    raise missing_genesis(settings.genesis)


def _write(outcome: StartOutcome) -> None:
    if outcome.candidate is not None:
        if outcome.action is StartAction.ACCEPT:
            trust_state.write_accepted(outcome.layout, outcome.candidate.file, outcome.candidate.signature)
        elif outcome.action is StartAction.REPAIR:
            trust_state.write_acceptance(outcome.layout, outcome.candidate.sha256, outcome.candidate.signature)
    if outcome.is_staged:
        trust_state.remove_staged(outcome.layout)  # an accept was killed before its last step


def accept_command(kind: StoreKind) -> str:
    """Return the command line of the acceptance, as it is typed for this kind of store."""
    command = "r3mes genesis accept"
    return command if kind == "host" else f"docker compose run --rm --no-deps init {command}"
