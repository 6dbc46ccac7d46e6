"""The verifier's settings, from the environment alone."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from shared.settings import CommonSettings, Listen, ListenAddress

DEFAULT_SCRUB_HOURS = 168.0


class VerifierSettings(CommonSettings):
    """What the verifier takes from the environment."""

    listen: Listen = Field(
        ListenAddress("127.0.0.1", 8082),
        alias="R3MES_LISTEN",
        description="where its metrics are; images set `0.0.0.0:8082`",
    )
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"), alias="R3MES_REDIS_URL", description="as for the downloader"
    )
    scrub_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        DEFAULT_SCRUB_HOURS,
        alias="R3MES_SCRUB_HOURS",
        description="how often verified files are read again; one that changed is removed, recorded and fetched again",
    )
    # None: models that left the genesis are kept until `r3mes gc`.
    retain_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None,
        alias="R3MES_RETAIN_HOURS",
        description="how long a verified model is kept after it left the genesis ([store.md](store.md)); unset: "
        "until `r3mes gc`",
    )
