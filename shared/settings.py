"""Settings come from the environment alone, once, at the start.

Every process knows all names of the stack and ignores those of others; an `R3MES_*` name that nobody knows is an
error, since a typo must not be silent. Every secret may come as `NAME` or as `NAME_FILE`, not both.
Order: unknown names, secrets from files, then the service's own fields.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from shared.errors import ConfigurationError
from shared.redaction import without_credentials

SECRET_NAMES = frozenset({"R3MES_REDIS_URL", "R3MES_API_KEYS", "HF_TOKEN"})
# Addresses whose paths may hold a key: what refuses one says which, and does not show it.
SECRET_PATH_NAMES = frozenset({"R3MES_CHAIN_RPC"})

KNOWN_NAMES = frozenset(
    name
    for group in (
        # init
        "R3MES_GENESIS R3MES_GENESIS_SHA256 R3MES_GENESIS_SIGNATURE R3MES_GENESIS_PUBKEY R3MES_CHAIN_RPC",
        "R3MES_ALLOW_OPEN R3MES_BIND R3MES_ALLOW_HTTP_SOURCES HF_ENDPOINT R3MES_API_KEYS R3MES_JOINED_NODES",
        # all
        "R3MES_MODELS_DIR R3MES_STORE_KIND R3MES_NODE R3MES_LISTEN R3MES_LOG_LEVEL R3MES_DEBUG",
        # downloader
        "R3MES_REDIS_URL HF_TOKEN R3MES_IPFS_GATEWAYS R3MES_IMPORT_DIR R3MES_DOWNLOAD_CONNECTIONS",
        "R3MES_DOWNLOAD_MAX_BYTES_PER_SECOND R3MES_RECONCILE_SECONDS R3MES_MINER_URL",
        # verifier
        "R3MES_SCRUB_HOURS R3MES_RETAIN_HOURS",
        # miner
        "R3MES_MODEL R3MES_ENGINE R3MES_N_GPU_LAYERS R3MES_N_CTX R3MES_CONTEXT_OVERFLOW R3MES_THREADS",
        "R3MES_FLASH_ATTN R3MES_KV_TYPE_K R3MES_KV_TYPE_V R3MES_SPLIT_MODE R3MES_TENSOR_SPLIT R3MES_MAX_SEQUENCES",
        "R3MES_MAX_QUEUE R3MES_MAX_PROMPT_TOKENS R3MES_MAX_BODY_BYTES R3MES_REQUEST_SECONDS R3MES_DRAIN_SECONDS",
        "R3MES_IDLE_UNLOAD_SECONDS R3MES_MINER_REHASH R3MES_PREFIX_CACHE_BYTES",
        # Compose, launcher
        "R3MES_URL R3MES_MINER_MEMORY",
    )
    for name in group.split()
) | {f"{name}_FILE" for name in SECRET_NAMES}

MAX_PORT = 65535
NODE_PATTERN = "[a-z0-9-]{1,63}"
NodeName = Annotated[str, Field(pattern=f"^{NODE_PATTERN}$")]


class ListenAddress(NamedTuple):
    """Where a process listens, from `host:port` or `[v6]:port`."""

    host: str
    port: int


def parse_listen_address(value: object) -> object:
    """Parse `host:port`; raises ValueError (for pydantic) when it is not one."""
    if isinstance(value, ListenAddress):
        return value
    host, separator, port = str(value).rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > MAX_PORT:
        raise ValueError("wanted host:port, for example 127.0.0.1:8080")
    return ListenAddress(host.strip("[]"), int(port))


Listen = Annotated[ListenAddress, BeforeValidator(parse_listen_address)]


def split_list(value: object) -> object:
    """Split a comma-separated value into its non-empty parts."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _check_home(path: Path) -> Path:
    try:
        path.expanduser()
    except RuntimeError as error:
        raise ValueError("the home of a user whom this host does not know") from error
    return path


UserPath = Annotated[Path, AfterValidator(_check_home)]
"""A path that may begin with `~` or `~user`, whose home is there to be found."""


def can_be_sent(key: str) -> bool:
    """Tell whether a key arrives in an `Authorization` header as it was meant, whatever client sends it."""
    return key.isascii() and key.isprintable()


def _check_sendable(secret: SecretStr) -> SecretStr:
    if not all(map(can_be_sent, secret_values(secret))):
        raise ValueError("wanted ASCII letters, digits and signs alone: nothing else passes an HTTP header")
    return secret


SentSecret = Annotated[SecretStr, AfterValidator(_check_sendable)]
"""One or several, comma- or line-separated, that go into an `Authorization` header."""


class CommonSettings(BaseModel):
    """What every process takes from the environment."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True, populate_by_name=True)

    models_dir: UserPath = Field(
        Path("~/.r3mes/models"),
        alias="R3MES_MODELS_DIR",
        description="the store; images set `/models`",
        validate_default=True,
    )
    store_kind: Literal["host", "container"] = Field(
        "host", alias="R3MES_STORE_KIND", description="whose store it is; images set `container`"
    )
    node: NodeName = Field(
        "local",
        alias="R3MES_NODE",
        description="the name of this host in Redis: letters `a-z`, digits and `-`, at most 63",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", alias="R3MES_LOG_LEVEL", description="what is logged to stderr"
    )
    debug: bool = Field(
        default=False,
        alias="R3MES_DEBUG",
        description="tracebacks for known errors of `r3mes`; a service takes it without effect",
    )

    @property
    def store_root(self) -> Path:
        """The store's root directory, absolute, with `~` expanded."""
        return self.models_dir.expanduser().absolute()


SettingsT = TypeVar("SettingsT", bound=CommonSettings)


def load_settings(cls: type[SettingsT], environ: Mapping[str, str] | None = None) -> SettingsT:
    """Read `cls` from the environment.

    Raises ConfigurationError naming the variable for an unknown `R3MES_*` name, an unreadable or doubled secret,
    and any value that does not fit. An empty value counts as unset.
    """
    source = dict(os.environ if environ is None else environ)
    given = {name: value for name, value in source.items() if value.strip()}
    check_names(given)
    values = resolve_secrets(given)
    aliases = [field.alias for field in cls.model_fields.values() if field.alias]
    try:
        return cls.model_validate({name: values[name] for name in aliases if name in values})
    except ValidationError as error:
        raise _describe(error, values) from error


def check_names(names: Mapping[str, str] | set[str], *, where: str = "the environment") -> None:
    """Raise ConfigurationError for an `R3MES_*` name that no process knows."""
    for name in sorted(names):
        if name.startswith("R3MES_") and name not in KNOWN_NAMES:
            near = difflib.get_close_matches(name, KNOWN_NAMES, n=1)
            hint = f"did you mean {near[0]}?" if near else "remove it; docs and README list the names"
            # A look-alike letter must not look like the name it stands for.
            shown = name if name.isascii() and name.isprintable() else ascii(name)
            raise ConfigurationError(f"unknown setting {shown} in {where}", next_step=hint)


def resolve_secrets(values: Mapping[str, str]) -> dict[str, str]:
    """Give each secret that has a `NAME_FILE` that file's content as `NAME`, stripped.

    Raises ConfigurationError when a secret is given both ways or its file cannot be read.
    """
    resolved = dict(values)
    for name in sorted(SECRET_NAMES):
        path = resolved.get(f"{name}_FILE")
        if path is None:
            continue
        if name in resolved:
            raise ConfigurationError(f"{name} and {name}_FILE are both set", next_step="keep one of them")
        try:
            resolved[name] = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"{name}_FILE: cannot read {path}: {error}", next_step="check the path and its rights"
            ) from error
    return resolved


def _describe(error: ValidationError, values: Mapping[str, Any]) -> ConfigurationError:
    first = error.errors(include_url=False, include_input=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    found = "a secret" if name in SECRET_NAMES else ascii(values.get(name))
    shown = first["msg"] if name in SECRET_PATH_NAMES else without_credentials(f"found {found}: {first['msg']}")
    return ConfigurationError(f"{name}: {shown}", next_step=f"correct {name} or unset it")


def secret_values(secret: SecretStr | None) -> tuple[str, ...]:
    """Return the comma- or line-separated values of a secret, in order."""
    if secret is None:
        return ()
    return split_secret(secret.get_secret_value())


def split_secret(text: str) -> tuple[str, ...]:
    """Return the comma- or line-separated values of a secret's text."""
    return tuple(part.strip() for part in re.split(r"[,\n]", text) if part.strip())
