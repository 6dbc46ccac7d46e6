"""The verifier's settings, from the environment alone."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, field_validator

from shared.settings import CommonSettings, Listen, ListenAddress

DEFAULT_SCRUB_HOURS = 168.0


class VerifierSettings(CommonSettings):
    """What the verifier takes from the environment."""

    listen: Listen = Field(ListenAddress("127.0.0.1", 8082), alias="R3MES_LISTEN")
    redis_url: SecretStr = Field(SecretStr("redis://127.0.0.1:6379/0"), alias="R3MES_REDIS_URL")
    scrub_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        DEFAULT_SCRUB_HOURS, alias="R3MES_SCRUB_HOURS"
    )
    retain_hours: str | None = Field(None, alias="R3MES_RETAIN_HOURS")

    @field_validator("retain_hours")
    @classmethod
    def _refuse_retention(cls, value: str | None) -> str | None:
        # A setting that deletes nothing must not look as if it did.
        if value is not None:
            raise ValueError("retention is not supported yet; models that left the genesis are kept")
        return value
