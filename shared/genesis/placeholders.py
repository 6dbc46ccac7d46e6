"""Digests that a template left behind: each is refused by name, since a placeholder is not a wrong digest.

Pure. A real SHA-256 has neither a period of 16 digits or less nor the words below (those are not hex).
"""

from __future__ import annotations

import re

HOW_TO_FILL_IN = (
    "`sha256sum FILE.gguf` prints the digest; `r3mes genesis add FILE.gguf --name NAME --url URL "
    "--genesis THIS_FILE` computes it and fills in the whole entry"
)

_EMPTY_FILE = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_WORDS = re.compile(
    r"<|>|\.\.\.|…|\$\{|\{\{|your|placeholder|replace|insert|change_?me|todo|tbd|fixme|dummy|sample|example|here"
    r"|hash|sha_?256_|sha256$|checksum|digest|xxx",
    re.IGNORECASE,
)
_LONGEST_PERIOD = 16
_SHORTEST_RUN = 8
_DIGEST_LENGTH = 64


def placeholder_digest(text: str) -> str:
    """Say in a few words which placeholder `text` is; empty when it is none."""
    if not text:
        return "which is empty"
    if _WORDS.search(text):
        return "which is a placeholder"
    if text.lower() == _EMPTY_FILE:
        return "which is the digest of an empty file"
    if len(text) >= _SHORTEST_RUN and len(set(text.lower())) == 1:
        return "which is a placeholder (one character repeated)"
    if len(text) == _DIGEST_LENGTH and _period(text.lower()) <= _LONGEST_PERIOD:
        return "which is a placeholder (a repeated pattern)"
    return ""


def _period(text: str) -> int:
    """Return the length of the shortest piece that, repeated, gives `text`."""
    return (text + text).find(text, 1)
