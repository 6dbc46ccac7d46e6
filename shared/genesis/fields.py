"""The rule of each field, one function a field: a JSON value in, the checked value out, or `FieldRefusedError`.

Pure and independent of settings: four processes with different environments must read one file alike. Which
addresses may be used is another question and `shared.addresses` answers it.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from multiformats import CID

from shared.genesis.placeholders import HOW_TO_FILL_IN, placeholder_digest
from shared.genesis.quote import quote
from shared.genesis.types import gigabytes_to_bytes

T = TypeVar("T")

MAX_NAME = 128  # characters; a label in metrics and an id in requests
MAX_FILE_NAME = 255  # bytes; NAME_MAX of Linux file systems
MAX_URL = 2048  # characters; what proxies and CDNs take
MAX_HOST = 253  # characters; DNS
MAX_CID = 128  # characters; a CIDv1 with a 512-bit digest in base 16 is longer than anything in use
MAX_GIGABYTES = 1_000_000  # one petabyte: beyond it the unit was mistaken

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._:/@+()-]*[A-Za-z0-9._:/@+()-])?")
_FILE_NAME = re.compile(r"[A-Za-z0-9][\x20-\x7e]*\.gguf")
_SPLIT_PART = re.compile(r"-[0-9]+-of-[0-9]+\.gguf", re.IGNORECASE)
_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")
# RFC 3986 without the fragment; a percent sign only before two hex digits.
_URL = re.compile(r"(?:[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# What the C library would take for an address in disguise: 2130706433, 0x7f.1, 127.1.
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)")
_CID = re.compile(r"[A-Za-z0-9_-]+")


class FieldRefusedError(Exception):
    """A value does not follow its field's rule."""

    def __init__(self, found: str, wanted: str, *, next_step: str = "") -> None:
        super().__init__(found)
        self.found = found
        self.wanted = wanted
        self.next_step = next_step


def model_name(value: object) -> str:
    """Check the model's id: letters, digits, single spaces and `._:/@+()-`, starting with a letter or digit."""
    text = _text(value, "a name")
    if not 0 < len(text) <= MAX_NAME or not _NAME.fullmatch(text) or "  " in text:
        raise FieldRefusedError(
            quote(text),
            f"1 to {MAX_NAME} ASCII letters, digits, single spaces or ._:/@+()-, starting with a letter or digit",
        )
    return text


def file_name(value: object) -> str:
    """Check a bare `*.gguf` file name that is no part of a split model."""
    text = _text(value, "a file name")
    if len(text) > MAX_FILE_NAME or not _FILE_NAME.fullmatch(text) or "/" in text or "\\" in text:
        raise FieldRefusedError(
            quote(text),
            "a bare *.gguf name of printable ASCII that starts with a letter or digit, "
            f"without / or \\, at most {MAX_FILE_NAME} characters",
        )
    if _SPLIT_PART.search(text):
        raise FieldRefusedError(
            f"{quote(text)}, one part of a split model",
            "a model in one file",
            next_step="join the parts with llama.cpp's `llama-gguf-split --merge FIRST_PART WHOLE.gguf`, "
            "publish the whole file and pin that",
        )
    return text


def digest(value: object) -> str:
    """Check 64 hex digits, fold them to lower case; a placeholder is refused by name."""
    text = _text(value, "64 hex digits")
    why = placeholder_digest(text)
    if why:
        raise FieldRefusedError(
            f"{quote(text)}, {why}", "the SHA-256 of the model file (64 hex digits)", next_step=HOW_TO_FILL_IN
        )
    if not _DIGEST.fullmatch(text):
        raise FieldRefusedError(
            quote(text), "the SHA-256 of the model file: 64 hex digits and nothing else", next_step=HOW_TO_FILL_IN
        )
    return text.lower()


def download_source(value: object) -> str:
    """Check the form of an http or https URL: a host, no user info, no fragment, ASCII without spaces."""
    text = _text(value, "a URL")
    wanted = "an http or https URL without spaces, user info or fragment"
    if not 0 < len(text) <= MAX_URL or not _URL.fullmatch(text):
        raise FieldRefusedError(quote(text), f"{wanted}, at most {MAX_URL} characters")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise FieldRefusedError(quote(text), wanted) from error
    if parts.scheme not in {"http", "https"} or port == 0:
        raise FieldRefusedError(quote(text), wanted)
    if "@" in parts.netloc:
        # The value is not shown: user info may be a secret.
        raise FieldRefusedError("a URL with user info", wanted, next_step="give a token by HF_TOKEN instead")
    if not is_host(parts.hostname or ""):
        raise FieldRefusedError(quote(text), "a URL with a host name or a plainly written IP address")
    return text


def is_host(host: str) -> bool:
    """Say whether `host` (as urlsplit gives it) is a DNS name or a canonically written IP address."""
    if ":" in host:
        return "%" not in host and _is_address(host)
    if _ENDS_IN_NUMBER.fullmatch(host):
        return _is_address(host)
    return len(host) <= MAX_HOST and _HOST.fullmatch(host) is not None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def disk_space(value: object) -> float:
    """Check a size in GB (10^9 bytes): finite, at least one byte."""
    wanted = f"a number of GB (10^9 bytes) above 0 and at most {MAX_GIGABYTES}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FieldRefusedError(quote(value), wanted)
    # Compare before converting: an int may be larger than any float.
    if not 0 < value <= MAX_GIGABYTES or not math.isfinite(value) or gigabytes_to_bytes(float(value)) < 1:
        raise FieldRefusedError(quote(value), wanted)
    return float(value)


def size_within(gigabytes: float) -> Callable[[object], int]:
    """Return the rule of `size_bytes`: the exact size, at most what `required_disk_space_gb` allows."""
    limit = gigabytes_to_bytes(gigabytes)

    def size_bytes(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise FieldRefusedError(quote(value), "a whole number of bytes above 0, or no such key")
        if value > limit:
            raise FieldRefusedError(
                quote(value), f"at most {limit}, which is required_disk_space_gb in bytes (1 GB = 10^9)"
            )
        return value

    return size_bytes


def ipfs_fallback_hash(value: object) -> str:
    """Check a CID (version 0 or 1), or the empty string where none is known."""
    text = _text(value, 'a CID or ""')
    if not text:
        return text
    if len(text) > MAX_CID or not _CID.fullmatch(text) or not _is_cid(text):
        raise FieldRefusedError(
            quote(text), 'a CID (Qm... or bafy...), or "" where none is known', next_step="`ipfs add FILE` prints it"
        )
    return text


def _is_cid(text: str) -> bool:
    try:
        CID.decode(text)
    except (ValueError, LookupError, TypeError, AssertionError):
        # What multiformats raises depends on where its decoder gives up; all of it means "not a CID".
        return False
    return True


def _text(value: object, wanted: str) -> str:
    if not isinstance(value, str):
        raise FieldRefusedError(quote(value), f"{wanted}, as a string")
    return value
