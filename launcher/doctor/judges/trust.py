"""What a start would say of the genesis. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.doctor.verdict import Verdict, from_error, ok
from shared.acceptance import StartAction
from shared.errors import R3mesError

_SAID = {
    StartAction.ACCEPT: "right; the first start accepts it",
    StartAction.REPAIR: "right; a start completes an acceptance that was cut off",
    StartAction.GO_ON_STAGED: "staged; what was accepted goes on until `r3mes genesis accept`",
}


@dataclass(frozen=True, slots=True)
class GenesisFacts:
    """How a start would decide: `error` when it refuses; `signature` is who signed it, empty where no key is set."""

    action: StartAction | None
    sha256: str = ""
    models: tuple[str, ...] = ()
    has_file: bool = False
    signature: str = ""
    left_out: int = 0
    error: R3mesError | None = None


def judge_genesis(found: GenesisFacts) -> Verdict:
    """A start must not be refused."""
    if found.error is not None or found.action is None:
        return from_error(found.error or R3mesError("nothing is known of the genesis"))
    default = "unchanged since it was accepted" if found.has_file else "no file; what was accepted goes on"
    said = [_SAID.get(found.action, default), f"{len(found.models)} model{'s' if len(found.models) != 1 else ''}"]
    if found.left_out:
        said.append(f"{found.left_out} of the chain left out")
    said.append(f"signed: {found.signature}" if found.signature else "no signature asked for")
    return ok("; ".join(said), sha256=found.sha256, models=list(found.models), action=found.action.value)
