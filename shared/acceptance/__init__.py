"""Acceptance: the only way in which an operator's genesis becomes the one that this host runs.

Invariants: every check comes before the first write; `trust/genesis.json` is replaced first, `accepted.json` second,
so that a crash between leaves a pair that disagrees and that nobody takes for accepted; what was checked and shown is
what is written, by digest and by one descriptor; what runs is changed by a first start or by a person (`accept`), never
by a changed file.
Order: `load_init_settings` (unknown names, an open bind), `check_store`, `read_candidate` (file, digest, signature),
`decide_start` (pure), addresses, `ask_chain`, `prepare_directories`, the two writes, `store.json`.
Services on a host call `start_host_store`; `r3mes init` calls `start_store`; `r3mes genesis accept` calls
`plan_acceptance`, asks, then `accept` or (after `check_stageable`) `stage`.
"""

from shared.acceptance.accept import AcceptancePlan, accept, check_stageable, plan_acceptance, stage
from shared.acceptance.candidate import Candidate, read_candidate
from shared.acceptance.decision import StartAction, TrustDigests, decide_start
from shared.acceptance.settings import InitSettings, is_redis_given, load_init_settings
from shared.acceptance.start import StartOutcome, check_start, start_host_store, start_store

__all__ = [
    "AcceptancePlan",
    "Candidate",
    "InitSettings",
    "StartAction",
    "StartOutcome",
    "TrustDigests",
    "accept",
    "check_stageable",
    "check_start",
    "decide_start",
    "is_redis_given",
    "load_init_settings",
    "plan_acceptance",
    "read_candidate",
    "stage",
    "start_host_store",
    "start_store",
]
