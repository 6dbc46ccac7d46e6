"""The signature over the operator's genesis: where it lies, and when there has to be one.

| R3MES_GENESIS_PUBKEY | signature                                | outcome                             |
|----------------------|------------------------------------------|-------------------------------------|
| set                  | there and right                          | goes on; recorded in accepted.json  |
| set                  | absent, or wrong in any way              | exit 78                             |
| unset                | named by R3MES_GENESIS_SIGNATURE         | exit 78                             |
| unset                | beside the genesis, as `<name>.minisig`  | ignored, with a line                |
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import structlog

from shared.acceptance.genesis_file import GenesisFile
from shared.acceptance.minisign import (
    MAX_SIGNATURE_BYTES,
    SignatureRefusedError,
    key_id_text,
    parse_signature,
    verify,
)
from shared.acceptance.settings import InitSettings
from shared.errors import ConfigurationError
from shared.genesis.quote import quote

SUFFIX = ".minisig"


def check_signature(settings: InitSettings, file: GenesisFile) -> str | None:
    """Check the signature over the operator's file; return the signature file's text, None where no key is set.

    Raises ConfigurationError, GenesisError when the genesis cannot be read.
    """
    path = settings.genesis_signature or settings.genesis.with_name(settings.genesis.name + SUFFIX)
    if settings.genesis_pubkey is not None:
        content = _read(path, key_id=key_id_text(settings.genesis_pubkey.key_id))
        _judge(settings, content, file.chunks(), where=str(path))
        return content.decode("utf-8")
    if settings.genesis_signature is not None:
        raise ConfigurationError(
            f"R3MES_GENESIS_SIGNATURE is set ({path}), and no key to check it by",
            next_step="set R3MES_GENESIS_PUBKEY, or unset R3MES_GENESIS_SIGNATURE",
        )
    if os.path.exists(path):  # noqa: PTH110 - False, not an error, where the way there is barred
        structlog.get_logger().warning("genesis signature ignored: no R3MES_GENESIS_PUBKEY", file=str(path))
    return None


def check_recorded(settings: InitSettings, recorded: str | None, accepted: GenesisFile) -> None:
    """Check the signature that was recorded at acceptance over the accepted file, where no operator's file is left.

    Raises ConfigurationError when a key is set and there is none, or it is wrong.
    """
    if settings.genesis_pubkey is None:
        return
    if recorded is None:
        raise ConfigurationError(
            f"R3MES_GENESIS_PUBKEY is set, and {accepted.path} was accepted without a signature",
            next_step=f"put the genesis and its signature back ({settings.genesis}), then `r3mes genesis accept`",
        )
    where = f"{accepted.path}, as recorded at acceptance"
    _judge(settings, recorded.encode("utf-8"), accepted.chunks(), where=where)


def describe_signature(text: str) -> str:
    """Say by which key a signature was made that has been checked, and its trusted comment, in one line."""
    signature = parse_signature(text.encode("utf-8"))
    return f"right, key {key_id_text(signature.key_id)}, {quote(signature.trusted_comment)}"


def _judge(settings: InitSettings, content: bytes, message: Iterable[bytes], *, where: str) -> None:
    if settings.genesis_pubkey is None:
        return
    try:
        verify(settings.genesis_pubkey, parse_signature(content), message)
    except SignatureRefusedError as error:
        raise ConfigurationError(
            f"{where}: found {error.found}, wanted {error.wanted}",
            next_step="get genesis and signature from who signs them, and compare R3MES_GENESIS_PUBKEY with their key",
        ) from error


def _read(path: Path, *, key_id: str) -> bytes:
    try:
        # O_NONBLOCK: a named pipe in the file's place must not hang a start.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            with open(descriptor, "rb") as file:
                return file.read(MAX_SIGNATURE_BYTES + 1)
        os.close(descriptor)
        found = "something that is not a regular file"
    except FileNotFoundError:
        found = "no such file"
    except (OSError, ValueError) as error:
        found = f"a file that cannot be read: {error}"
    raise ConfigurationError(
        f"{path}: found {found}, wanted the genesis file's signature, since R3MES_GENESIS_PUBKEY is set",
        next_step=f"get the signature of the key {key_id}, or name its file by R3MES_GENESIS_SIGNATURE",
    )
