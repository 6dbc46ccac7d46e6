"""The downloader's settings: names and defaults of the contract, read once at the start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr

from services.downloader.miners.places import MinerPlaces
from shared.chain import ChainRpc
from shared.settings import CommonSettings, Listen, ListenAddress, SentSecret, UserPath, load_settings, split_list

# Asked only for a pin that names a CID, and only after Hugging Face failed.
PUBLIC_IPFS_GATEWAYS = ("https://ipfs.io", "https://dweb.link")


class DownloaderSettings(CommonSettings):
    """What the downloader takes from the environment."""

    listen: Listen = Field(
        ListenAddress("127.0.0.1", 8081),
        alias="R3MES_LISTEN",
        description="where its API and metrics are; images set `0.0.0.0:8081`",
    )
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        alias="R3MES_REDIS_URL",
        description="in Compose a Redis outside of the stack, which needs `R3MES_NODE`; without it `init` makes the "
        "credentials ([pinning.md](pinning.md))",
    )
    api_keys: SentSecret | None = Field(
        None,
        alias="R3MES_API_KEYS",
        description="keys for `POST /api/…`, separated by commas; those of a file one a line, and they may change "
        "without a restart",
    )
    api_keys_file: Path | None = Field(None, alias="R3MES_API_KEYS_FILE")
    chain_rpc: ChainRpc | None = Field(
        None, alias="R3MES_CHAIN_RPC", description="as for `init`: a quorum's veto stops downloads while this runs"
    )
    hf_token: SentSecret | None = Field(
        None, alias="HF_TOKEN", description="for gated models; sent to the Hugging Face endpoint alone"
    )
    ipfs_gateways: Annotated[tuple[str, ...], BeforeValidator(split_list)] = Field(
        PUBLIC_IPFS_GATEWAYS,
        alias="R3MES_IPFS_GATEWAYS",
        description="asked only when Hugging Face failed, all at once; after wrong bytes each alone, in this order. "
        "A local Kubo is simply the first",
    )
    import_dir: UserPath | None = Field(
        None,
        alias="R3MES_IMPORT_DIR",
        description="a folder in which `<file_name>` may lie already; a right one is adopted, a wrong one left "
        "alone and named. In containers it needs `compose.import.yml` ([operations.md](operations.md))",
    )
    connections: int = Field(
        8,
        alias="R3MES_DOWNLOAD_CONNECTIONS",
        description="connections for one model; fewer are used where more do not help",
        ge=1,
        le=64,
    )
    max_bytes_per_second: int | None = Field(
        None,
        alias="R3MES_DOWNLOAD_MAX_BYTES_PER_SECOND",
        description="bandwidth over all connections and models together",
        ge=1,
    )
    reconcile_seconds: float = Field(
        15.0,
        alias="R3MES_RECONCILE_SECONDS",
        description="how often the store is looked at when nothing else asks",
        gt=0,
        le=3600,
    )
    miner_places: MinerPlaces = Field(
        (),
        alias="R3MES_MINER_URL",
        description="where the status page finds the miners: `http://HOST:PORT`, or several separated by commas; every "
        "address of a name is a miner. Compose sets `http://miner:8080`",
    )


def load_downloader_settings() -> DownloaderSettings:
    """Read the settings from the environment; raises ConfigurationError naming the variable."""
    return load_settings(DownloaderSettings)
