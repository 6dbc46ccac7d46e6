"""What a start would decide about the genesis, asked of the code that decides it; the chain is left in peace."""

from __future__ import annotations

from launcher.doctor.judges.trust import GenesisFacts, judge_genesis
from launcher.doctor.subject import Subject
from launcher.doctor.verdict import Verdict
from shared.acceptance import check_start, load_init_settings
from shared.acceptance.signature import describe_signature
from shared.errors import R3mesError


def check_genesis(subject: Subject) -> list[Verdict]:
    """Do the checks of a start, which write nothing."""
    try:
        settings, values = load_init_settings(subject.environ, project=subject.project)
        outcome = check_start(settings.model_copy(update={"chain_rpc": None}), values)
        signature = outcome.candidate.signature if outcome.candidate else None
        facts = GenesisFacts(
            action=outcome.action,
            sha256=outcome.sha256,
            models=tuple(pin.model_name for pin in outcome.genesis.models),
            has_file=outcome.candidate is not None,
            signature=describe_signature(signature) if signature else "",
            left_out=len(outcome.genesis.left_out),
        )
    except R3mesError as error:
        facts = GenesisFacts(None, error=error)
    return [judge_genesis(facts)]
