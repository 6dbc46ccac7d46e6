"""The settings of acceptance: on a host from the environment, in a container also from the project's `.env` as a file.

`init` alone reads `R3MES_GENESIS*` and the whole `.env`, and never through Compose: changed settings would recreate
`init` and, before it has run, every service that depends on it. What the process's own environment says comes first.
"""

from __future__ import annotations

import io
import ipaddress
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream
from pydantic import BeforeValidator, Field

from shared.acceptance.minisign import PublicKey, parse_public_key
from shared.chain import ChainRpc
from shared.errors import ConfigurationError
from shared.settings import (
    KNOWN_NAMES,
    SECRET_NAMES,
    CommonSettings,
    NodeName,
    SentSecret,
    UserPath,
    check_names,
    load_settings,
    secret_values,
    split_list,
)

MAX_ENV_BYTES = 1024 * 1024
DEFAULT_GENESIS = Path("genesis/genesis.json")
_LINE_END = re.compile(r"\r\n|\n|\r")


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _public_key(value: object) -> object:
    return parse_public_key(value) if isinstance(value, str) else value


class InitSettings(CommonSettings):
    """What acceptance and `init` take from the environment."""

    genesis: UserPath = Field(
        DEFAULT_GENESIS, alias="R3MES_GENESIS", description="the operator's genesis; relative to the project's folder"
    )
    genesis_sha256: Annotated[str, BeforeValidator(_lower)] | None = Field(
        None,
        alias="R3MES_GENESIS_SHA256",
        description="the digest that the file must have, over its raw bytes; else exit code 78",
        pattern=r"^[0-9a-f]{64}$",
    )
    genesis_signature: UserPath | None = Field(
        None,
        alias="R3MES_GENESIS_SIGNATURE",
        description="where the signature lies; unset: the genesis + `.minisig`. Naming one without a key is exit "
        "code 78",
    )
    genesis_pubkey: Annotated[PublicKey, BeforeValidator(_public_key)] | None = Field(
        None,
        alias="R3MES_GENESIS_PUBKEY",
        description="a minisign public key, the second line of `minisign.pub`; once it is set, the file must be "
        "signed by it, else exit code 78",
    )
    chain_rpc: ChainRpc | None = Field(
        None,
        alias="R3MES_CHAIN_RPC",
        description="three to sixteen RPC endpoints of the chain, separated by commas, whose quorum may veto a pin "
        "([pinning.md](pinning.md)); no user info and no query",
    )
    allow_open: bool = Field(
        default=False, alias="R3MES_ALLOW_OPEN", description="`1` allows `R3MES_BIND` beyond loopback without keys"
    )
    api_keys: SentSecret | None = Field(
        None, alias="R3MES_API_KEYS", description="asked for when `R3MES_BIND` is beyond loopback"
    )
    bind: str = Field(
        "127.0.0.1", alias="R3MES_BIND", description="where Compose publishes ports; beyond loopback it needs API keys"
    )
    joined_nodes: Annotated[tuple[NodeName, ...], BeforeValidator(split_list)] = Field(
        (),
        alias="R3MES_JOINED_NODES",
        description="other hosts that may use this one's Redis, by their `R3MES_NODE` ([containers.md](containers.md))",
    )


def load_init_settings(environ: Mapping[str, str], *, project: Path) -> tuple[InitSettings, dict[str, str]]:
    """Read the settings, and the environment that they came from (for the address policy).

    `project` is the folder to which relative paths belong and, in a container, whose `.env` is read.
    Raises ConfigurationError for unknown names, values that do not fit, and a bind beyond loopback without API keys.
    """
    values = {name: value for name, value in environ.items() if value.strip()}
    if values.get("R3MES_STORE_KIND") == "container":
        values = {**read_env_file(project / ".env"), **values}
    check_names(values, where="the environment or .env")
    _check_secrets_given_once(values)
    _check_node_named(values)
    settings = load_settings(InitSettings, _without_foreign_secrets(values, project))
    _check_bind(settings)
    _check_joined(settings)
    named = settings.genesis_signature
    places = {
        "genesis": _in_project(settings.genesis, project),
        "genesis_signature": None if named is None else _in_project(named, project),
    }
    return settings.model_copy(update=places), values


def is_redis_given(values: Mapping[str, str]) -> bool:
    """Tell whether the operator names a Redis: in a container stack one outside of it, with credentials of its own."""
    return any(values.get(name) for name in ("R3MES_REDIS_URL", "R3MES_REDIS_URL_FILE"))


def read_env_file(path: Path) -> dict[str, str]:
    """Return the non-empty settings of a `.env` file that this stack knows; an absent file has none.

    Raises ConfigurationError for a line that cannot be read, an unknown `R3MES_*` name, a name that stands twice, and a
    value of ours that is empty only because of what it refers to.
    """
    text = _text_of(path)
    bindings = list(parse_stream(io.StringIO(text)))
    _check_lines(bindings, path)
    given = dotenv_values(stream=io.StringIO(text), interpolate=True)
    check_names(set(given), where=str(path))
    _check_references(bindings, given, path)
    return {name: value for name, value in given.items() if value and value.strip() and _is_ours(name)}


def read_env_value(path: Path, name: str) -> str:
    """Return one value of a `.env` file, of Compose's own too; empty without it. Raises ConfigurationError."""
    return dotenv_values(stream=io.StringIO(_text_of(path)), interpolate=True).get(name) or ""


def _text_of(path: Path) -> str:
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigurationError(f"{path} is not a regular file", next_step="write it anew as a text file")
            raw = file.read(MAX_ENV_BYTES + 1)
        if len(raw) > MAX_ENV_BYTES:
            raise ConfigurationError(f"{path} is larger than {MAX_ENV_BYTES} bytes", next_step="shorten it")
        text = raw.decode("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}", next_step="correct the file or its rights") from error
    if "\0" in text:  # an environment has none, and no path may hold one
        raise ConfigurationError(f"{path} holds a NUL character", next_step="write it anew as a text file")
    return text


def _check_lines(bindings: Sequence[Binding], path: Path) -> None:
    lines: dict[str, int] = {}
    for binding in bindings:
        line = _line(binding)
        if binding.error:
            raise ConfigurationError(
                f"{path}, line {line}: not a setting", next_step="write NAME=value, or # before a note"
            )
        if binding.key is None:
            continue
        if binding.key in lines:  # of two pins the last would count, and nobody would be told
            raise ConfigurationError(
                f"{path}, line {line}: {binding.key} stands in line {lines[binding.key]} already",
                next_step="keep one of them",
            )
        lines[binding.key] = line


def _check_references(bindings: Sequence[Binding], given: Mapping[str, str | None], path: Path) -> None:
    """Refuse `NAME=${UNSET}`: read as no value, it would take a check away that somebody meant to set."""
    for binding in bindings:
        name, written = binding.key, binding.value
        if name is None or not _is_ours(name) or not written or not written.strip():
            continue
        if not (given[name] or "").strip():
            raise ConfigurationError(
                f"{path}, line {_line(binding)}: {name} is empty, because what it refers to is not set",
                next_step=f"set what it refers to, or write `{name}=` to leave it unset",
            )


def _line(binding: Binding) -> int:
    """Return where a binding's own text begins: the parser counts from the empty lines before it."""
    text = binding.original.string
    blank = text[: len(text) - len(text.lstrip())]
    return binding.original.line + len(_LINE_END.findall(blank))


def _without_waiting(path: str, flags: int) -> int:
    """Open as `open` does, but never wait: a named pipe in the file's place must not hang a start."""
    return os.open(path, flags | os.O_NONBLOCK)


def _in_project(path: Path, project: Path) -> Path:
    expanded = path.expanduser()
    return expanded if expanded.is_absolute() else project / expanded


def _is_ours(name: str) -> bool:
    return name in KNOWN_NAMES or name.upper().endswith("_PROXY")


def _check_secrets_given_once(values: Mapping[str, str]) -> None:
    for name in sorted(SECRET_NAMES):
        if name in values and f"{name}_FILE" in values:
            raise ConfigurationError(f"{name} and {name}_FILE are both set", next_step="keep one of them")


def _check_node_named(values: Mapping[str, str]) -> None:
    if values.get("R3MES_STORE_KIND") == "container" and is_redis_given(values) and "R3MES_NODE" not in values:
        raise ConfigurationError(
            "R3MES_REDIS_URL names a Redis outside of this stack, and this host has no name there",
            next_step="set R3MES_NODE to a name that no other host on that Redis has",
        )


def _without_foreign_secrets(values: Mapping[str, str], project: Path) -> dict[str, str]:
    """Leave out secret files of other services, which need not be mounted here; keys are beside the project."""
    kept = {name: value for name, value in values.items() if name.removesuffix("_FILE") not in SECRET_NAMES}
    if "R3MES_API_KEYS" in values:
        kept["R3MES_API_KEYS"] = values["R3MES_API_KEYS"]
    if "R3MES_API_KEYS_FILE" in values:
        kept["R3MES_API_KEYS_FILE"] = str(project / values["R3MES_API_KEYS_FILE"])
    return kept


def _check_joined(settings: InitSettings) -> None:
    names = [settings.node, *settings.joined_nodes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(
            f"R3MES_JOINED_NODES: {', '.join(twice)} is named twice, or is this host's own R3MES_NODE",
            next_step="give every host a name that no other one has",
        )


def _check_bind(settings: InitSettings) -> None:
    try:
        address = ipaddress.ip_address(settings.bind.strip("[]"))
    except ValueError as error:
        raise ConfigurationError(
            f"R3MES_BIND: found {settings.bind!a}, wanted an IP address", next_step="for example 127.0.0.1"
        ) from error
    if not (address.is_loopback or settings.allow_open or secret_values(settings.api_keys)):
        raise ConfigurationError(
            f"R3MES_BIND={settings.bind} opens the ports to others, and there are no API keys",
            next_step="set R3MES_API_KEYS, or R3MES_ALLOW_OPEN=1 if everyone who reaches this host may use it",
        )
