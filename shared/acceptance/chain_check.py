"""The chain's veto at an acceptance and at `init`: it stops them with exit code 78 before anything is written.

78, not 3: no bytes are wrong; a person has to change the genesis, or the endpoints, before a start can succeed.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from shared.acceptance.settings import InitSettings
from shared.chain import Consultation, consult
from shared.errors import ConfigurationError
from shared.genesis import Genesis


def ask_chain(settings: InitSettings, environ: Mapping[str, str], genesis: Genesis) -> Consultation | None:
    """Ask the endpoints of R3MES_CHAIN_RPC; return what they said, None where none are set.

    Raises ConfigurationError when a quorum of them lacks a pinned digest. Takes up to a minute: never under a lock.
    """
    if settings.chain_rpc is None:
        return None
    consultation = consult(settings.chain_rpc, environ)
    if consultation.registry is None:
        structlog.get_logger().warning("the chain check stops nothing", why=consultation.describe())
        return consultation
    lacking = consultation.registry.lacks(genesis.models)
    if lacking:
        pins = ", ".join(f"{pin.model_name} ({pin.sha256})" for pin in lacking)
        raise ConfigurationError(
            f"the chain vetoes {pins}: {consultation.describe()}, and these are not in it",
            next_step="pin what the chain's registry holds, or correct R3MES_CHAIN_RPC if it names another chain",
        )
    return consultation
