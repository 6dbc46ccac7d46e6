"""What a miner's answers mean. Pure; an answer may be anything, so only what has the known shape goes on."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

MAX_MODELS = 64
_MAX_TEXT = 1000
# What has no picture of its own and changes what stands around it: controls, and overrides of the writing direction.
_UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp"})


def _plain(text: str) -> str:
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(char) in _UNSEEN else char for char in text)


Text = Annotated[str, StringConstraints(max_length=_MAX_TEXT), AfterValidator(_plain)]
Count = Annotated[int, Field(ge=0, le=2**62)]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Hardware(_Answer):
    """The one decision about the device, and why."""

    gpu_layers: int | None = Field(None, ge=-1, le=100_000)
    gpu_offload_active: bool = False
    cells: Count | None = None
    threads: Count | None = None
    why: tuple[Text, ...] = Field((), max_length=64)


class Details(_Answer):
    """What stands under `r3mes`."""

    sha256: Text = ""
    file_name: Text = ""
    engine: Text = ""
    engine_reason: Text = ""
    description: Text = ""
    quantization: Text = ""
    parameters: Count | None = None
    weight_bytes: Count | None = None
    memory: Text = ""
    context_tokens: Count | None = None
    training_tokens: Count | None = None
    loaded: bool = True
    hardware: Hardware = Hardware()


class ServedModel(_Answer):
    """One entry of `/v1/models`."""

    id: Text
    object: Text = "model"
    created: Count = 0
    owned_by: Text = ""
    r3mes: Details | None = None


class _Models(_Answer):
    data: tuple[ServedModel, ...] = Field((), max_length=MAX_MODELS)


class _Ready(_Answer):
    ready: bool
    reason: Text = ""


@dataclass(frozen=True, slots=True)
class MinerView:
    """One miner as `/api/v1/status` shows it. `running` and `waiting` count requests, None where nobody knows."""

    url: str
    ready: bool
    reason: str
    models: tuple[ServedModel, ...] = ()
    running: int | None = None
    waiting: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        fields = asdict(self)
        return {**fields, "models": [model.model_dump(mode="json", exclude_none=True) for model in self.models]}


def readiness(status: int, body: bytes) -> tuple[bool, str]:
    """Return whether `/readyz` says ready, and why not; a gateway in front of miners says it by its status alone."""
    is_ok = status == HTTPStatus.OK
    try:
        said = _Ready.model_validate_json(body)
    except ValidationError:
        return is_ok, "" if is_ok else f"it answers with status {status}"
    is_ready = is_ok and said.ready
    return is_ready, said.reason or ("" if is_ready else "it says that it is not ready")


def models(status: int, body: bytes) -> tuple[ServedModel, ...] | str:
    """Return the models of `/v1/models`, or why there are none to show."""
    if status == HTTPStatus.UNAUTHORIZED:
        return "it refuses our API key"
    if status != HTTPStatus.OK:
        return f"its list of models has status {status}"
    try:
        return _Models.model_validate_json(body).data
    except ValidationError:
        return "its list of models makes no sense"


def gauge(exposition: bytes, name: str) -> int | None:
    """Return the value of a gauge without labels, None where there is no such number."""
    found = re.search(rb"^" + name.encode() + rb" ([0-9]{1,9})(?:\.0)?$", exposition, re.MULTILINE)
    return int(found[1]) if found else None
