"""The downloader's settings: names and defaults of the contract, read once at the start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr

from shared.chain import ChainRpc
from shared.settings import CommonSettings, Listen, ListenAddress, UserPath, load_settings, split_list

# Asked only for a pin that names a CID, and only after Hugging Face failed.
PUBLIC_IPFS_GATEWAYS = ("https://ipfs.io", "https://dweb.link")


class DownloaderSettings(CommonSettings):
    """What the downloader takes from the environment."""

    listen: Listen = Field(ListenAddress("127.0.0.1", 8081), alias="R3MES_LISTEN")
    redis_url: SecretStr = Field(SecretStr("redis://127.0.0.1:6379/0"), alias="R3MES_REDIS_URL")
    api_keys: SecretStr | None = Field(None, alias="R3MES_API_KEYS")
    api_keys_file: Path | None = Field(None, alias="R3MES_API_KEYS_FILE")
    chain_rpc: ChainRpc | None = Field(None, alias="R3MES_CHAIN_RPC")
    hf_token: SecretStr | None = Field(None, alias="HF_TOKEN")
    ipfs_gateways: Annotated[tuple[str, ...], BeforeValidator(split_list)] = Field(
        PUBLIC_IPFS_GATEWAYS, alias="R3MES_IPFS_GATEWAYS"
    )
    import_dir: UserPath | None = Field(None, alias="R3MES_IMPORT_DIR")
    connections: int = Field(8, alias="R3MES_DOWNLOAD_CONNECTIONS", ge=1, le=64)
    max_bytes_per_second: int | None = Field(None, alias="R3MES_DOWNLOAD_MAX_BYTES_PER_SECOND", ge=1)
    reconcile_seconds: float = Field(15.0, alias="R3MES_RECONCILE_SECONDS", gt=0, le=3600)
    miner_url: str | None = Field(None, alias="R3MES_MINER_URL")


def load_downloader_settings() -> DownloaderSettings:
    """Read the settings from the environment; raises ConfigurationError naming the variable."""
    return load_settings(DownloaderSettings)
